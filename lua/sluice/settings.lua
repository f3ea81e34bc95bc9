--- What the edge was told in nginx's configuration (nginx/snippets/lua.conf), read once at start.

local _M = {}

local function read(path)
    local file, err = io.open(path, "r")
    if not file then
        error("could not read " .. path .. ": " .. err, 0)
    end
    local text = file:read("*a")
    file:close()
    return text
end

--- Takes the settings, and reads the secrets that they name.
-- @param given secret_keys_file, edge_key_file, api_socket, storage_root, resolver (address:port of DNS servers, with
--   spaces between), and the seconds target_ttl, revocation_lag and link_grace
function _M.load(given)
    for name, value in pairs(given) do
        _M[name] = value
    end
    _M.keys = {}
    -- As api/config.py: a line or a comma between keys, oldest first.
    for key in read(given.secret_keys_file):gmatch("[^%s,]+") do
        table.insert(_M.keys, key)
    end
    if #_M.keys == 0 then
        error("there is no key in " .. given.secret_keys_file, 0)
    end
    _M.edge_key = read(given.edge_key_file):match("^%s*(%S+)%s*$")
    if not _M.edge_key then
        error("there is no key in " .. given.edge_key_file, 0)
    end
end

return _M
