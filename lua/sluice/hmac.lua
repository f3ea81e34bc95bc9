--- HMAC-SHA256 by the libcrypto that nginx already links (HMAC(3), CRYPTO_memcmp(3)).

local ffi = require("ffi")

ffi.cdef [[
const void *EVP_sha256(void);
unsigned char *HMAC(const void *md, const void *key, int key_len, const unsigned char *data, size_t data_len,
                    unsigned char *digest, unsigned int *digest_len);
int CRYPTO_memcmp(const void *a, const void *b, size_t length);
]]

local _M = {}

_M.LENGTH = 32

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

--- Compares two strings in a time that does not tell where they differ.
function _M.equal(a, b)
    return #a == #b and crypto.CRYPTO_memcmp(a, b, #a) == 0
end

return _M
