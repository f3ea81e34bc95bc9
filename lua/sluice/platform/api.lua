--- Internal requests to the API, over its unix socket, or over TCP to one of its instances.
-- Clients' requests use proxy_pass instead.

local semaphore = require("ngx.semaphore")
local instances = require("sluice.platform.instances")
local settings = require("sluice.platform.settings")

local _M = {}

local CONNECT_MS, SEND_MS, READ_MS = 500, 500, 2000
local MAX_BODY = 16 * 1024 * 1024
local MAX_HEADERS = 100
-- Most concurrent internal requests per worker that clients' requests cause; further ones wait. So the revocation feed,
-- which has no such limit, has few requests before it.
local MOST_FOR_REQUESTS, WAIT_SECONDS = 8, 2

local places = semaphore.new(MOST_FOR_REQUESTS)

--- Reads the status line and the headers of a response.
-- @return status, and Content-Length if there is one; or nil, err
function _M.read_head(socket)
    local line, err = socket:receive("*l")
    if not line then
        return nil, err
    end
    local status = line:match("^HTTP/1%.[01] (%d%d%d)")
    if not status then
        return nil, "not an HTTP answer"
    end
    local length
    for _ = 1, MAX_HEADERS do
        line, err = socket:receive("*l")
        if not line then
            return nil, err
        end
        if line == "" then
            break
        end
        length = line:lower():match("^content%-length:%s*(%d+)%s*$") or length
    end
    return tonumber(status), tonumber(length)
end

local function read_answer(socket)
    local status, length = _M.read_head(socket)
    if not status then
        return nil, length
    end
    -- The request is HTTP/1.0, so a response without a length would end with the connection, and a truncated one would
    -- look complete. The API always sends the length.
    if not length or length > MAX_BODY then
        return nil, "no usable Content-Length"
    end
    local body, err = ""
    if length > 0 then
        body, err = socket:receive(length)
        if not body then
            return nil, err
        end
    end
    return status, body
end

-- One request and its response.
local function ask(method, path, body)
    local socket = ngx.socket.tcp()
    socket:settimeouts(CONNECT_MS, SEND_MS, READ_MS)
    local ok, err = instances.connect(socket)
    if not ok then
        return nil, "could not connect to the API: " .. err
    end
    local status, answer
    ok, err = socket:send({
        method, " ", path, " HTTP/1.0\r\nHost: api\r\nX-Sluice-Edge: ", settings.edge_key, "\r\nConnection: close\r\n",
        body and "Content-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" or "\r\n", body or "",
    })
    if ok then
        status, answer = read_answer(socket)
        err = answer
    end
    socket:close()
    if not status then
        return nil, "no answer from the API: " .. err
    end
    return status, answer
end

--- GET from the API.
-- @param path with its query
-- @return status and body, or nil, err
function _M.get(path)
    return ask("GET", path)
end

--- GET on behalf of a client's request; limited in concurrency.
function _M.get_for_request(path)
    local ok, err = places:wait(WAIT_SECONDS)
    if not ok then
        return nil, "too many questions to the API at once: " .. err
    end
    local done, status, answer = pcall(ask, "GET", path)
    places:post(1)
    if not done then
        error(status, 0)
    end
    return status, answer
end

--- POST to the API.
-- @param body JSON
-- @return status and body; or nil, err: then it is unknown whether the API has processed it
function _M.post(path, body)
    return ask("POST", path, body)
end

return _M
