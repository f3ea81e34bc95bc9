--- Addresses of storages' endpoints: /etc/hosts, then DNS at SLUICE_RESOLVER.
-- nginx's resolver works only for `proxy_pass`, which then keeps no connections open. The balancer that keeps
-- connections (nginx.conf) needs an address, and cannot wait for a look-up.

local ffi = require("ffi")
local dns = require("sluice.storage.dns")
local lru = require("sluice.platform.lru")
local settings = require("sluice.platform.settings")

ffi.cdef [[ int RAND_bytes(unsigned char *buffer, int length); ]]

local _M = {}

-- A datagram may get lost.
local TRIES, TIMEOUT_MS = 2, 1000
-- Seconds for which an expired result is used again if DNS fails.
local STALE_SECONDS = 10
local ASKING_SECONDS = 10

local cache = lru.new(256)
local asking = {}

-- The names in /etc/hosts, which other programs use too.
local function read_hosts(path)
    local known, file = {}, io.open(path, "r")
    for line in file and file:lines() or function() end do
        local address, names = line:gsub("#.*", ""):match("^%s*([%x:.]+)%s+(.+)$")
        for name in (names or ""):gmatch("%S+") do
            local found = address:find(":", 1, true) and "[" .. address .. "]" or address
            known[name:lower()] = known[name:lower()] or { found }
        end
    end
    if file then
        file:close()
    end
    return known
end

local hosts = read_hosts("/etc/hosts")

local random = ffi.new("unsigned char[2]")

-- Sends one query to one server. A late response to an earlier query may arrive first.
local function exchange(socket, name, kind)
    local question = dns.question(name, kind)
    if not question then
        return nil, "not a name"
    end
    ffi.C.RAND_bytes(random, 2)
    local id = ffi.string(random, 2)
    local ok, err = socket:send(dns.message(id, question))
    if not ok then
        return nil, err
    end
    local addresses, more
    repeat
        local message
        message, err = socket:receive(4096)
        if not message then
            return nil, err
        end
        addresses, more = dns.read(message, id, question, kind)
    until addresses or more ~= "another"
    return addresses, more
end

local function ask(server, name)
    local address, port = server:match("^(.-):(%d+)$")
    local socket = ngx.socket.udp()
    socket:settimeout(TIMEOUT_MS)
    local addresses
    local ok, more = socket:setpeername(address, tonumber(port))
    if ok then
        addresses, more = exchange(socket, name, dns.A)
        if not addresses and more == dns.NO_ADDRESS then
            addresses, more = exchange(socket, name, dns.AAAA)
        end
    end
    socket:close()
    return addresses, more
end

local function look_up(name)
    local problem = "there is no SLUICE_RESOLVER"
    for _ = 1, TRIES do
        for server in settings.resolver:gmatch("%S+") do
            local addresses, more = ask(server, name)
            if addresses then
                return addresses, more
            end
            problem = more
        end
    end
    return nil, problem
end

-- Addresses that need no DNS: the host is an address, or is in /etc/hosts.
local function known(host)
    if host:match("^%d+%.%d+%.%d+%.%d+$") or host:sub(1, 1) == "[" then
        return { host }
    end
    return hosts[host:lower()]
end

--- The current addresses of a host, without the cache.
-- @return a list of addresses, or nil, err
function _M.fresh(host)
    local addresses = known(host)
    if addresses then
        return addresses
    end
    return look_up(host:lower())
end

--- The addresses of a host.
-- @param host a name, an IPv4 address, or an IPv6 address in brackets
-- @return a list of addresses, or nil, err
function _M.addresses(host)
    local name, addresses = host:lower(), known(host)
    if addresses then
        return addresses
    end
    local found, old = cache:get(name)
    if found then
        return found
    end
    local now = ngx.now()
    -- While one request resolves it again, the others use the expired result.
    if old and (asking[name] or 0) > now then
        return old
    end
    asking[name] = now + ASKING_SECONDS
    local more
    addresses, more = look_up(name)
    asking[name] = nil
    if addresses then
        cache:set(name, addresses, more)
    elseif old then
        addresses = old
        cache:set(name, old, STALE_SECONDS)
    end
    return addresses, more
end

return _M
