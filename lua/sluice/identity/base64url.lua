--- Base64 with the URL's alphabet and no padding (RFC 4648 section 5), as itsdangerous writes it.
-- In LuaJIT alone, so that what stands on it can be tested outside nginx.

local bit = require("bit")
local ffi = require("ffi")

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift

local _M = {}

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
local INVALID = 64

local encoding = ffi.new("uint8_t[64]")
local decoding = ffi.new("uint8_t[256]")
ffi.fill(decoding, 256, INVALID)
for value = 0, 63 do
    encoding[value] = ALPHABET:byte(value + 1)
    decoding[ALPHABET:byte(value + 1)] = value
end

-- One buffer for all: nothing here yields.
local SIZE = 4096
local buffer = ffi.new("uint8_t[?]", SIZE)

--- Encodes bytes.
-- @param bytes a string, or a uint8_t array with its length
-- @param length number of bytes when it is an array
-- @return the text
function _M.encode(bytes, length)
    length = length or #bytes
    local source = ffi.cast("const uint8_t *", bytes)
    local target = length * 4 / 3 + 4 > SIZE and ffi.new("uint8_t[?]", length * 2 + 4) or buffer
    local at, bits, held = 0, 0, 0
    for i = 0, length - 1 do
        held = bor(lshift(held, 8), source[i])
        bits = bits + 8
        while bits >= 6 do
            bits = bits - 6
            target[at] = encoding[band(rshift(held, bits), 63)]
            at = at + 1
        end
        held = band(held, lshift(1, bits) - 1)
    end
    if bits > 0 then
        target[at] = encoding[lshift(held, 6 - bits)]
        at = at + 1
    end
    return ffi.string(target, at)
end

--- Decodes the canonical text of some bytes.
-- @param text base64url without padding
-- @return the bytes, or nil, err
function _M.decode(text)
    local length = #text
    if length > SIZE then
        return nil, "too long"
    end
    local source = ffi.cast("const uint8_t *", text)
    local at, bits, held = 0, 0, 0
    for i = 0, length - 1 do
        local value = decoding[source[i]]
        if value == INVALID then
            return nil, "not base64url"
        end
        held = bor(lshift(held, 6), value)
        bits = bits + 6
        if bits >= 8 then
            bits = bits - 8
            buffer[at] = rshift(held, bits)
            at = at + 1
            held = band(held, lshift(1, bits) - 1)
        end
    end
    if bits >= 6 or held ~= 0 then
        return nil, "not canonical"
    end
    return ffi.string(buffer, at)
end

return _M
