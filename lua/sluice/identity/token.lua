--- Verifies the tokens that the API signs (api/core/tokens.py), from their bytes alone.
-- A token is value.timestamp.signature: value is base64url(JSON claims), and the signature
-- HMAC-SHA256(HMAC-SHA256(key, purpose), "value.timestamp"), as itsdangerous' TimestampSigner makes it. Claims are
-- decoded after the signature was found good, so a forged token costs an HMAC and no parsing.

local bit = require("bit")
local cjson = require("cjson")
local base64url = require("sluice.identity.base64url")
local hmac = require("sluice.identity.hmac")

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

local function is_text(value)
    return type(value) == "string"
end

--- What the claims of a purpose hold. What the edge does not read is not checked here.
local CLAIMS = {
    access = { sid = is_id, sub = is_id, gen = is_count, exp = is_count },
    link = {
        jti = is_id, file = is_id, fgen = is_count, blob = is_id, size = is_count, sub = is_id, gen = is_count,
        disp = is_text, name = is_text, type = is_text, exp = is_count,
    },
    -- With storage, to and sha256 where it goes on to another storage; with seal where it is a whole object.
    part = { upload = is_id, part = is_count, size = is_count, sub = is_id, gen = is_count, exp = is_count },
}

local SEAL = "seal"
local SEAL_LENGTH = 64

--- A verifier.
-- @param keys list of strings, oldest first; any of them verifies
function _M.new(keys)
    local salted = {}
    local purposes = { SEAL }
    for purpose in pairs(CLAIMS) do
        table.insert(purposes, purpose)
    end
    for _, purpose in ipairs(purposes) do
        salted[purpose] = {}
        -- The newest key first: most tokens are of that one.
        for i = #keys, 1, -1 do
            table.insert(salted[purpose], hmac.keyed(assert(hmac.sha256(keys[i], purpose))))
        end
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

-- Which of the keys has signed, or nil.
local function find_signer(keys, signed, signature)
    for i = 1, #keys do
        -- Comparing texts leaves one spelling of a signature: the canonical one.
        if hmac.equal(base64url.encode(keys[i]:sign(signed)), signature) then
            return i
        end
    end
    return nil
end

-- The storage's signature that a part's token holds for the edge alone, XORed with a pad (api/core/tokens.py).
local function unseal(key, claims)
    local seal, to, sha256 = claims.seal, claims.to, claims.sha256
    if not is_text(seal) or #seal ~= SEAL_LENGTH or not is_text(to) or not is_text(sha256) then
        return nil
    end
    local pad = key:sign(string.format("%d\n%s\n%s", claims.size, sha256, to))
    local at = 0
    return (seal:gsub("%x%x", function(byte)
        at = at + 1
        return bit.tohex(bit.bxor(tonumber(byte, 16), pad:byte(at)), 2)
    end))
end

local function decode(purpose, value)
    local text = base64url.decode(value)
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

--- Verifies a token.
-- @param purpose access, link or part
-- @param text the token
-- @param now epoch seconds
-- @return its claims, or nil and "invalid" or "expired"
function _M:verify(purpose, text, now)
    if #text > MAX_LENGTHS[purpose] then
        return nil, "invalid"
    end
    local first, second = find_dots(text)
    local signer = first and find_signer(self.salted[purpose], text:sub(1, second - 1), text:sub(second + 1))
    if not signer then
        return nil, "invalid"
    end
    local claims = decode(purpose, text:sub(1, first - 1))
    if not claims then
        return nil, "invalid"
    end
    if purpose == "part" and claims.seal then
        claims.signature = unseal(self.salted[SEAL][signer], claims)
        if not claims.signature then
            return nil, "invalid"
        end
    end
    if claims.exp <= now then
        return nil, "expired"
    end
    return claims
end

return _M
