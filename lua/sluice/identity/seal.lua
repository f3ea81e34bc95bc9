--- Opens tokens that the API has sealed (api/core/tokens.py): AES-256-GCM by the libcrypto that nginx already links
-- (EVP_EncryptInit(3), "AEAD interface"; NIST SP 800-38D).

local ffi = require("ffi")

ffi.cdef [[
const void *EVP_aes_256_gcm(void);
void *EVP_CIPHER_CTX_new(void);
void EVP_CIPHER_CTX_free(void *ctx);
int EVP_DecryptInit_ex(void *ctx, const void *type, void *impl, const unsigned char *key, const unsigned char *iv);
int EVP_DecryptUpdate(void *ctx, unsigned char *out, int *out_length, const unsigned char *in, int length);
int EVP_DecryptFinal_ex(void *ctx, unsigned char *out, int *out_length);
int EVP_CIPHER_CTX_ctrl(void *ctx, int type, int arg, void *ptr);
]]

local _M = {}

local seal = { __index = _M }

local KEY, NONCE, TAG = 32, 12, 16
local SET_TAG = 0x11
local LONGEST = 4096

-- Outside nginx, in tests, the library is not in the process yet.
local linked = pcall(function() return ffi.C.EVP_aes_256_gcm end)
local crypto = linked and ffi.C or ffi.load("libcrypto.so.3")

-- One of each for all: nothing here yields.
local opened = ffi.new("unsigned char[?]", LONGEST)
local length = ffi.new("int[1]")
local tag = ffi.new("unsigned char[?]", TAG)

--- Creates an opener for one key.
-- @param key 32 bytes
function _M.new(key)
    assert(#key == KEY)
    local context = ffi.gc(assert(crypto.EVP_CIPHER_CTX_new()), crypto.EVP_CIPHER_CTX_free)
    -- Once: the cipher and the key are most of what it costs to make one ready.
    assert(crypto.EVP_DecryptInit_ex(context, crypto.EVP_aes_256_gcm(), nil, key, nil) == 1)
    return setmetatable({ context = context }, seal)
end

--- Decrypts and verifies.
-- @param sealed nonce, ciphertext, tag
-- @return the plain bytes, or nil if they were not sealed with this key
function _M:open(sealed)
    local size = #sealed - NONCE - TAG
    if size < 0 or size > LONGEST then
        return nil
    end
    local bytes = ffi.cast("const unsigned char *", sealed)
    local context = self.context
    ffi.copy(tag, bytes + NONCE + size, TAG)
    if crypto.EVP_DecryptInit_ex(context, nil, nil, nil, bytes) ~= 1
        or crypto.EVP_DecryptUpdate(context, opened, length, bytes + NONCE, size) ~= 1
        or crypto.EVP_CIPHER_CTX_ctrl(context, SET_TAG, TAG, tag) ~= 1
        or crypto.EVP_DecryptFinal_ex(context, opened + size, length) ~= 1 then
        return nil
    end
    return ffi.string(opened, size)
end

return _M
