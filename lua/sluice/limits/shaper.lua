--- One rate limit per user, shared by all of the user's connections.
-- nginx's limit_rate applies to one connection and cannot be changed while it runs. So if a user's tier has a rate,
-- this module sends the downloads: a cosocket reads the file from the edge's inner server (sendfile from local storage,
-- or the proxied storage), and books the time of each piece on the user's clock before it sends it. Users without a
-- rate do not use this module. nginx 1.22 cannot slow down a request body while reading. Instead, a part waits before
-- it is accepted until the account has budget for it, in slices that alternate with the user's other connections. After
-- MOST_WAIT seconds it is accepted on credit.

local api = require("sluice.platform.api")
local gcra = require("sluice.limits.gcra")
local readers = require("sluice.limits.readers")
local random = require("sluice.platform.random")
local settings = require("sluice.platform.settings")
local usage = require("sluice.limits.usage")

local ngx = ngx

local _M = {}

-- A piece takes a twentieth of a second, within these sizes.
local PIECES_PER_SECOND, SMALLEST, LARGEST = 20, 16 * 1024, 256 * 1024
-- A sender that is woken late may catch up to this many seconds.
local SLACK = 0.2
-- Seconds that a part waits before it is accepted on credit; less than the timeouts of clients.
local MOST_WAIT = 20
-- Seconds of credit after which further parts are refused.
local MOST_CREDIT = 60
local CONNECT_MS, SEND_MS, READ_MS = 1000, 5000, 65000

local feed = ngx.shared.feed

local function piece(rate)
    return math.max(SMALLEST, math.min(LARGEST, math.floor(rate / PIECES_PER_SECOND)))
end

-- The clock of a request, and the other clock of the account: one is for the owner's downloads and parts, the other for
-- readers of the account's links. While both are in use, each has half of the rate.
local function clocks_of(account, is_reader)
    local own, links = "r:" .. account, "r:links:" .. account
    if is_reader then
        return links, own
    end
    return own, links
end

local function cost(size, rate, other)
    return gcra.is_running(other) and 2 * size / rate or size / rate
end

--- The secret that the inner server requires, so that other processes cannot use its socket.
function _M.secret()
    local secret = feed:get("inner_secret")
    if not secret then
        feed:safe_add("inner_secret", random.hex(16))
        secret = feed:get("inner_secret")
    end
    return secret
end

local function open(file, range)
    local socket = ngx.socket.tcp()
    socket:settimeouts(CONNECT_MS, SEND_MS, READ_MS)
    local ok, err = socket:connect("unix:" .. settings.edge_socket)
    if ok then
        ok, err = socket:send({
            "GET /", file, " HTTP/1.0\r\nHost: edge\r\nX-Sluice-Inner: ", _M.secret(),
            range ~= "" and "\r\nRange: " .. range or "", "\r\n\r\n",
        })
    end
    if not ok then
        return nil, err
    end
    return socket
end

-- Sends the bytes of a socket, and books them piece by piece.
-- @return bytes that were sent and booked; and the error, if the storage failed
local function pump(socket, length, account, rate)
    local clock, other = clocks_of(account, readers.is_reading())
    local most, left = piece(rate), length
    while left > 0 do
        local size = math.min(most, left)
        local wait = gcra.book(clock, cost(size, rate, other), SLACK)
        if wait > 0 then
            ngx.sleep(wait)
        end
        local data, err = socket:receive(size)
        if not data then
            return length - left, "the storage stopped: " .. err
        end
        -- Waits until the client has received it, so that only one piece per response is in memory.
        if not ngx.print(data) or not ngx.flush(true) then
            return length - left
        end
        usage.add(account, size, 0)
        left = left - size
    end
    return length
end

--- Requests the bytes of a file from the inner server.
-- @param range Range's value, or ""
-- @param wanted number of bytes
-- @return a socket to read them from; or nil, the inner server's error code if it sent one, and an error message
function _M.ask(file, range, wanted)
    local socket, err = open(file, range)
    if not socket then
        return nil, nil, "could not reach the inner server: " .. err
    end
    local status, length = api.read_head(socket)
    if (status == ngx.HTTP_OK or status == ngx.HTTP_PARTIAL_CONTENT) and length == wanted then
        return socket
    end
    local body = status and length and length < 4096 and socket:receive(length)
    socket:close()
    return nil, body and body:match('"code":"([A-Z_]+)"'), "the inner server answered " .. tostring(status or length)
end

--- Sends a file's bytes at the user's rate, after the headers were set.
-- @return bytes that were sent and booked; and the error, if the storage failed
function _M.send(socket, length, account, rate)
    local sent, err = pump(socket, length, account, rate)
    socket:close()
    return sent, err
end

--- Waits until the account has budget for a part.
-- @return nil; or the seconds to wait before a retry
function _M.await_part(account, rate, length)
    local clock, other = clocks_of(account, false)
    local most = piece(rate)
    local ends, left = ngx.now() + MOST_WAIT, length
    while left > 0 do
        local size = math.min(most, left)
        local seconds = cost(size, rate, other)
        local wait = gcra.book(clock, seconds, SLACK)
        if left == length and wait > MOST_CREDIT then
            gcra.unbook(clock, seconds)
            return math.ceil(wait - MOST_CREDIT)
        end
        left = left - size
        if ngx.now() + wait > ends then
            gcra.book(clock, left / rate, SLACK)
            return nil
        elseif wait > 0 then
            ngx.sleep(wait)
        end
    end
    return nil
end

return _M
