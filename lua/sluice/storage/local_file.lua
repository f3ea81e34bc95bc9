--- Objects of local storage, looked at just before nginx opens them: what a failing disk or a person has made shorter,
-- longer or taken away must not be sent as if it were the whole. One statx() costs about a microsecond.

local ffi = require("ffi")

ffi.cdef([[
int statx(int folder, const char *path, int flags, unsigned int mask, void *found);
]])

local C = ffi.C

local _M = {}

local AT_FDCWD = -100
local STATX_SIZE = 0x200
-- struct statx is the same on every machine: 256 bytes, stx_size at byte 40.
local SIZE_AT = 5
local ENOENT, ENOTDIR = 2, 20

local found = ffi.new("uint64_t[32]")

--- Checks an object.
-- @param path of its file
-- @param size expected size in bytes
-- @return nil if the object is fine; otherwise missing, length or error
function _M.problem(path, size)
    if C.statx(AT_FDCWD, path, 0, STATX_SIZE, found) == 0 then
        return found[SIZE_AT] ~= size and "length" or nil
    end
    local errno = ffi.errno()
    return (errno == ENOENT or errno == ENOTDIR) and "missing" or "error"
end

return _M
