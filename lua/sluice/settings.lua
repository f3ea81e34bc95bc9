--- What the edge was told in nginx's configuration (nginx/snippets/lua.conf), read once at start.

local _M = {}

-- As api/keys.py has it: what is shorter is a file that somebody is just writing.
local KEY_LENGTH = 32

--- What stands in a file; an error where it cannot be read.
function _M.read(path)
    local file, err = io.open(path, "r")
    if not file then
        error("could not read " .. path .. ": " .. err, 0)
    end
    local text = file:read("*a")
    file:close()
    return text
end

--- The keys of a file's text, as api/keys.py has them: a line or a comma between them, oldest first. When one begins to
-- sign ("from=") is no business of the edge's.
-- @return a list, or nil, err
function _M.keys_of(text)
    local keys = {}
    for word in text:gmatch("[^%s,]+") do
        if not word:find("^from=%d+$") then
            if #word < KEY_LENGTH then
                return nil, "a key is too short"
            end
            table.insert(keys, word)
        end
    end
    if #keys == 0 then
        return nil, "there is no key"
    end
    return keys
end

--- Takes the settings, and reads the secrets that they name.
-- @param given secret_keys_file, edge_key_file, api_socket, storage_root, resolver (address:port of DNS servers, with
--   spaces between), and the seconds target_ttl, revocation_lag and link_grace
function _M.load(given)
    for name, value in pairs(given) do
        _M[name] = value
    end
    _M.keys_text = _M.read(given.secret_keys_file)
    local err
    _M.keys, err = _M.keys_of(_M.keys_text)
    if not _M.keys then
        error(err .. " in " .. given.secret_keys_file, 0)
    end
    _M.edge_key = _M.read(given.edge_key_file):match("^%s*(%S+)%s*$")
    if not _M.edge_key then
        error("there is no key in " .. given.edge_key_file, 0)
    end
end

return _M
