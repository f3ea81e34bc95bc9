--- Encodes DNS queries and decodes responses (RFC 1035 section 4).
-- It needs only LuaJIT, so that it can be tested outside nginx.

local bit = require("bit")

local _M = {}

_M.A, _M.AAAA = 1, 28
_M.NO_ADDRESS = "DNS knows no address"

-- Limits of the time for which a result is kept, in seconds, whatever its TTL is.
local SHORTEST, LONGEST = 5, 300

local function number(text, at, length)
    local value = 0
    for i = at, at + length - 1 do
        value = value * 256 + text:byte(i)
    end
    return value
end

-- The position after a name in a message. A pointer is always the last piece (section 4.1.4).
local function skip_name(message, at)
    while true do
        local length = message:byte(at)
        if not length then
            return nil
        elseif length == 0 then
            return at + 1
        elseif length >= 192 then
            return at + 2
        end
        at = at + length + 1
    end
end

local function text_of(kind, data)
    if kind == _M.A then
        return string.format("%d.%d.%d.%d", data:byte(1, 4))
    end
    local groups = {}
    for at = 1, 15, 2 do
        table.insert(groups, string.format("%x", number(data, at, 2)))
    end
    return "[" .. table.concat(groups, ":") .. "]"
end

--- The question section for a name.
-- @param kind A or AAAA
-- @return its bytes, or nil if the name is invalid
function _M.question(name, kind)
    local labels = {}
    for label in name:gmatch("[^.]+") do
        if #label > 63 then
            return nil
        end
        table.insert(labels, string.char(#label) .. label)
    end
    return table.concat(labels) .. "\0" .. string.char(0, kind, 0, 1)
end

--- A query message with one question.
-- @param id two bytes
function _M.message(id, question)
    return id .. "\1\0\0\1\0\0\0\0\0\0" .. question
end

--- Decodes a response.
-- @param message the received bytes
-- @return addresses and the seconds for which they are valid; or nil, err: "another" for another query's response
function _M.read(message, id, question, kind)
    if #message < 12 + #question or message:sub(1, 2) ~= id or message:byte(3) < 128
        or message:sub(13, 12 + #question):lower() ~= question:lower() then
        return nil, "another"
    end
    local code = bit.band(message:byte(4), 15)
    if code ~= 0 then
        return nil, "DNS answered with code " .. code
    end
    local addresses, seconds = {}, LONGEST
    local at = 13 + #question
    for _ = 1, number(message, 7, 2) do
        at = skip_name(message, at)
        if not at or #message < at + 9 then
            break -- truncated to the size of a datagram: some addresses are enough
        end
        local length = number(message, at + 8, 2)
        local data = message:sub(at + 10, at + 9 + length)
        -- Names in between are aliases (CNAME); the addresses that follow are the last one's.
        if number(message, at, 2) == kind and #data == (kind == _M.A and 4 or 16) then
            table.insert(addresses, text_of(kind, data))
            seconds = math.min(seconds, number(message, at + 4, 4))
        end
        at = at + 10 + length
    end
    if #addresses == 0 then
        return nil, _M.NO_ADDRESS
    end
    return addresses, math.max(SHORTEST, seconds)
end

return _M
