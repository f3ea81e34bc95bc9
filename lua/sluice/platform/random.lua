--- Cryptographically secure random bytes, from the libcrypto that nginx has loaded.

local ffi = require("ffi")

ffi.cdef [[ int RAND_bytes(unsigned char *buffer, int length); ]]

local _M = {}

--- Random bytes as hexadecimal text.
-- @param length number of bytes
function _M.hex(length)
    local buffer = ffi.new("unsigned char[?]", length)
    assert(ffi.C.RAND_bytes(buffer, length) == 1, "there are no random bytes")
    return (ffi.string(buffer, length):gsub(".", function(char)
        return string.format("%02x", char:byte())
    end))
end

return _M
