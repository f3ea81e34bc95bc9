--- Removes a unix socket's file that a killed nginx has left behind: nginx would not start while it exists.
-- Called while the configuration is read, before nginx listens. Reloads and `nginx -t` call it too, so the file is kept
-- if a process listens on the socket.

local ffi = require("ffi")

ffi.cdef [[
struct sluice_sockaddr_un { unsigned short family; char path[108]; };
int socket(int domain, int type, int protocol);
int connect(int socket, const struct sluice_sockaddr_un *address, unsigned int length);
int close(int socket);
]]

local _M = {}

local AF_UNIX, SOCK_STREAM, ECONNREFUSED = 1, 1, 111

--- Removes a socket's file if no process listens on it.
-- @param path at most 107 bytes
function _M.remove_stale(path)
    if #path > 107 then
        return -- nginx will report that
    end
    local address = ffi.new("struct sluice_sockaddr_un", AF_UNIX, path)
    local socket = ffi.C.socket(AF_UNIX, SOCK_STREAM, 0)
    if socket < 0 then
        return
    end
    local refused = ffi.C.connect(socket, address, ffi.sizeof(address)) ~= 0 and ffi.errno() == ECONNREFUSED
    ffi.C.close(socket)
    if refused then
        os.remove(path)
    end
end

return _M
