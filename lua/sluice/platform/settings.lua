--- The edge's settings from nginx's configuration (nginx/snippets/lua.conf), read once at the start.

local _M = {}

-- As api/core/keys.py: shorter ones could be guessed.
local SHORTEST_KEY = 32

--- The keys in a file, in the format of api/core/keys.py: oldest first, separated by lines or commas. The edge ignores
-- the times from which keys sign ("from=").
-- @return a list, or nil, err
function _M.read_keys(path)
    local file, err = io.open(path, "r")
    if not file then
        return nil, "could not read " .. err
    end
    local text = file:read("*a") or ""
    file:close()
    local keys = {}
    for key in text:gmatch("[^%s,]+") do
        if not key:find("^from=%d+$") then
            if #key < SHORTEST_KEY then
                return nil, path .. " holds a key of less than " .. SHORTEST_KEY .. " characters"
            end
            table.insert(keys, key)
        end
    end
    if #keys == 0 then
        return nil, "there is no key in " .. path
    end
    return keys
end

--- Takes the settings, and reads the secrets that they name.
-- @param given secret_keys_file, edge_key_file, api_socket or api_address (the other is empty), storage_root, resolver
--   (address:port of DNS servers, with spaces between), and the seconds target_ttl, revocation_lag and link_grace
function _M.load(given)
    for name, value in pairs(given) do
        _M[name] = value
    end
    -- Oldest first.
    local keys, problem = _M.read_keys(given.secret_keys_file)
    local edge_keys, other = _M.read_keys(given.edge_key_file)
    if not keys or not edge_keys then
        error(table.concat({ problem or other, problem and other }, "; "), 0)
    end
    _M.keys, _M.edge_key = keys, edge_keys[1]
end

return _M
