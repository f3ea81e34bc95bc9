--- HMAC-SHA256 by the libcrypto that nginx already links (HMAC(3), SHA256_Init(3), CRYPTO_memcmp(3)).

local bit = require("bit")
local ffi = require("ffi")

ffi.cdef [[
const void *EVP_sha256(void);
unsigned char *HMAC(const void *md, const void *key, int key_len, const unsigned char *data, size_t data_len,
                    unsigned char *digest, unsigned int *digest_len);
int CRYPTO_memcmp(const void *a, const void *b, size_t length);
typedef struct {
    uint32_t h[8]; uint32_t low, high; uint32_t data[16]; unsigned int num, md_len;
} sluice_sha256;
int SHA256_Init(sluice_sha256 *state);
int SHA256_Update(sluice_sha256 *state, const void *data, size_t length);
int SHA256_Final(uint8_t *digest, sluice_sha256 *state);
]]

local _M = {}

local keyed = { __index = _M }

_M.LENGTH = 32
local BLOCK = 64

-- Outside nginx, in tests, the library is not in the process yet.
local linked = pcall(function() return ffi.C.HMAC end)
local crypto = linked and ffi.C or ffi.load("libcrypto.so.3")

local sha256 = crypto.EVP_sha256()

--- HMAC-SHA256 into a buffer.
-- @param key string
-- @param data string
-- @param target uint8_t[32]
-- @return true, or nil, err
function _M.into(key, data, target)
    if crypto.HMAC(sha256, key, #key, data, #data, target, nil) == nil then
        return nil, "could not compute an HMAC"
    end
    return true
end

local buffer = ffi.new("uint8_t[?]", _M.LENGTH)

--- HMAC-SHA256.
-- @return 32 bytes, or nil, err
function _M.sha256(key, data)
    local ok, err = _M.into(key, data, buffer)
    if not ok then
        return nil, err
    end
    return ffi.string(buffer, _M.LENGTH)
end

local state = ffi.new("sluice_sha256")
local STATE_BYTES = ffi.sizeof(state)

-- SHA-256 that has taken in a key's pad (RFC 2104 section 2).
local function begun(key, pad)
    local block = ffi.new("uint8_t[?]", BLOCK, pad)
    for i = 1, #key do
        block[i - 1] = bit.bxor(key:byte(i), pad)
    end
    local made = ffi.new("sluice_sha256")
    crypto.SHA256_Init(made)
    crypto.SHA256_Update(made, block, BLOCK)
    return made
end

--- A key that signs often: HMAC(3) looks its algorithm up and takes the key in anew each time, which is most of what it
-- costs.
-- @param key at most 64 bytes
function _M.keyed(key)
    assert(#key <= BLOCK)
    return setmetatable({ inner = begun(key, 0x36), outer = begun(key, 0x5c) }, keyed)
end

--- HMAC-SHA256 of a keyed().
-- @return 32 bytes
function _M:sign(data)
    ffi.copy(state, self.inner, STATE_BYTES)
    crypto.SHA256_Update(state, data, #data)
    crypto.SHA256_Final(buffer, state)
    ffi.copy(state, self.outer, STATE_BYTES)
    crypto.SHA256_Update(state, buffer, _M.LENGTH)
    crypto.SHA256_Final(buffer, state)
    return ffi.string(buffer, _M.LENGTH)
end

--- Compares two strings in constant time: the time does not depend on the position of the first difference.
function _M.equal(a, b)
    return #a == #b and crypto.CRYPTO_memcmp(a, b, #a) == 0
end

return _M
