--- Verifies the tokens that the API makes (api/core/tokens.py), from their bytes alone.
-- A signed one is value.timestamp.signature: value is base64url(JSON claims), or of a link's claims in bytes
-- (api/core/claims.py), and the signature HMAC-SHA256(HMAC-SHA256(key, purpose), "value.timestamp"), as itsdangerous'
-- TimestampSigner makes it. Claims are decoded after the signature was found good, so a forged token costs an HMAC and
-- no parsing. A part's is sealed (seal.lua).

local cjson = require("cjson")
local base64url = require("sluice.identity.base64url")
local hmac = require("sluice.identity.hmac")
local seal = require("sluice.identity.seal")

local _M = {}
local verifier = { __index = _M }

-- Bytes of a token's text (api/core/tokens.py). A part's may hold the URL of another storage.
local MAX_LENGTHS = { access = 2048, link = 2048, part = 4096 }
local SIGNATURE_LENGTH = 43

local json = cjson.new()
json.decode_invalid_numbers(false)
json.decode_max_depth(4)

local function is_id(value)
    return type(value) == "string" and #value == 32 and not value:find("[^0-9a-f]")
end

local function is_count(value)
    return type(value) == "number" and value >= 0 and value % 1 == 0 and value < 2 ^ 53
end

--- The claims of each purpose. Claims that the edge does not read are not checked here.
local CLAIMS = {
    access = { sid = is_id, sub = is_id, gen = is_count, exp = is_count },
    -- With storage, to, sha256 and whole if the edge passes the part on to another storage.
    part = {
        upload = is_id, part = is_count, size = is_count, sub = is_id, sid = is_id, gen = is_count, exp = is_count,
    },
}

local SIGNED = { "access", "link" }
local SEALED = "sealed part"

-- A link's claims, in bytes: disposition 1, link id 8, file id 16, generation 4, expiry 4.
local LINK_BYTES = 33
local DISPOSITIONS = { [0] = "attachment", "inline" }

--- A verifier.
-- @param keys list of strings, oldest first; any of them verifies
function _M.new(keys)
    local salted = { [SEALED] = {} }
    for _, purpose in ipairs(SIGNED) do
        salted[purpose] = {}
    end
    -- The newest key first: most tokens are of that one.
    for i = #keys, 1, -1 do
        for _, purpose in ipairs(SIGNED) do
            table.insert(salted[purpose], hmac.keyed(assert(hmac.sha256(keys[i], purpose))))
        end
        table.insert(salted[SEALED], seal.new(assert(hmac.sha256(keys[i], SEALED))))
    end
    return setmetatable({ salted = salted }, verifier)
end

-- The places of the only two dots, or nil.
local function find_dots(text)
    local first = text:find(".", 1, true)
    local second = first and text:find(".", first + 1, true)
    if not second or first == 1 or second == first + 1 or #text - second ~= SIGNATURE_LENGTH then
        return nil
    end
    return first, second
end

-- Whether one of the keys has signed.
local function is_signed(keys, signed, signature)
    for i = 1, #keys do
        -- Comparing texts leaves one spelling of a signature: the canonical one.
        if hmac.equal(base64url.encode(keys[i]:sign(signed)), signature) then
            return true
        end
    end
    return false
end

local function hex(bytes, first, last)
    return (bytes:sub(first, last):gsub(".", function(char) return string.format("%02x", char:byte()) end))
end

local function number(bytes, first)
    local a, b, c, d = bytes:byte(first, first + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
end

local function decode_link(bytes)
    local disposition = bytes and #bytes == LINK_BYTES and DISPOSITIONS[bytes:byte()]
    if not disposition then
        return nil
    end
    return {
        disp = disposition, jti = hex(bytes, 2, 9), file = hex(bytes, 10, 25), gen = number(bytes, 26),
        exp = number(bytes, 30),
    }
end

local function decode(purpose, text)
    local ok, claims = pcall(json.decode, text)
    if not ok or type(claims) ~= "table" then
        return nil
    end
    for name, check in pairs(CLAIMS[purpose]) do
        if not check(claims[name]) then
            return nil
        end
    end
    return claims
end

local function open(keys, text)
    local sealed = base64url.decode(text)
    for i = 1, sealed and #keys or 0 do
        local opened = keys[i]:open(sealed)
        if opened then
            return opened
        end
    end
    return nil
end

-- The claims of a token that is ours, whenever it ends.
local function read(salted, purpose, text)
    if purpose == "part" then
        local opened = open(salted[SEALED], text)
        return opened and decode(purpose, opened)
    end
    local first, second = find_dots(text)
    if not first or not is_signed(salted[purpose], text:sub(1, second - 1), text:sub(second + 1)) then
        return nil
    end
    local value = base64url.decode(text:sub(1, first - 1))
    if purpose == "link" then
        return decode_link(value)
    end
    return decode(purpose, value)
end

--- Verifies a token.
-- @param purpose access, link or part
-- @param text the token
-- @param now epoch seconds
-- @return its claims, or nil and "invalid" or "expired"; a link's are disp, jti (16 hex), file, gen and exp
function _M:verify(purpose, text, now)
    local claims = #text <= MAX_LENGTHS[purpose] and read(self.salted, purpose, text)
    if not claims then
        return nil, "invalid"
    elseif claims.exp <= now then
        return nil, "expired"
    end
    return claims
end

return _M
