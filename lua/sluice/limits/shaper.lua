--- One bandwidth budget per user, over all of that user's connections.
-- nginx' limit_rate counts for one connection and cannot be changed while it runs. So a user whose tier has a rate
-- gets downloads through here: a cosocket asks the edge's own inner server for the file's bytes (sendfile of local
-- storage, or the proxied storage), and before each piece its time is booked on the user's one clock. Users without a
-- rate never come here. A part's body cannot be paced, as nginx reads it without asking anybody: its time is booked
-- before it is let in, in slices that take turns with the user's other connections, and after MOST_WAIT at once for
-- what is left.

local api = require("sluice.platform.api")
local gcra = require("sluice.limits.gcra")
local readers = require("sluice.limits.readers")
local random = require("sluice.platform.random")
local settings = require("sluice.platform.settings")
local usage = require("sluice.limits.usage")

local ngx = ngx

local _M = {}

-- A piece takes a twentieth of a second, within these sizes.
local PIECES_A_SECOND, SMALLEST, LARGEST = 20, 16 * 1024, 256 * 1024
-- Who is woken late makes up for it, up to so many seconds.
local SLACK = 0.2
-- Seconds that a part waits for its time before it is let in on credit: less than clients wait for an answer.
local MOST_WAIT = 20
-- Seconds of credit at which no further part is let in.
local MOST_AHEAD = 60
local CONNECT_MS, SEND_MS, READ_MS = 1000, 5000, 65000

local feed = ngx.shared.feed

local function piece(rate)
    return math.max(SMALLEST, math.min(LARGEST, math.floor(rate / PIECES_A_SECOND)))
end

-- The clock of a request, and the one that it shares the rate with: the owner's downloads and parts have one, readers
-- of the account's links the other. While both run, each has half of the rate.
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

--- What the inner server is shown, so that nobody else who finds its socket is served.
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

-- Sends what the socket gives, and books it as it goes.
-- @return bytes that were sent and booked, and why it was not all where that was the storage's fault
local function pump(socket, length, account, rate)
    local clock, other = clocks_of(account, readers.link() ~= nil)
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
        -- Waits until the client has taken it: one piece of a response is in memory.
        if not ngx.print(data) or not ngx.flush(true) then
            return length - left
        end
        usage.add(account, size, 0)
        left = left - size
    end
    return length
end

--- Asks for a file's bytes.
-- @param range Range's value, or ""
-- @param wanted number of bytes
-- @return a socket that gives them; or nil, the inner server's error code where it gave one, and what went wrong
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

--- Sends a file's bytes at the user's pace, once the headers stand.
-- @return bytes that were sent and booked, and why it was not all where that was the storage's fault
function _M.send(socket, length, account, rate)
    local sent, err = pump(socket, length, account, rate)
    socket:close()
    return sent, err
end

--- Waits until a part's time has come.
-- @return nil; or the seconds after which it may be tried again
function _M.await_part(account, rate, length)
    local clock, other = clocks_of(account, false)
    local most = piece(rate)
    local ends, left = ngx.now() + MOST_WAIT, length
    while left > 0 do
        local size = math.min(most, left)
        local seconds = cost(size, rate, other)
        local wait = gcra.book(clock, seconds, SLACK)
        if left == length and wait > MOST_AHEAD then
            gcra.unbook(clock, seconds)
            return math.ceil(wait - MOST_AHEAD)
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
