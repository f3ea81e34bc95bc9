--- The API's instances, if it is reached over TCP (SLUICE_API_ADDRESS), and which of them are healthy.
-- Twice per second one worker resolves the name and requests /healthz from each address. An instance that was told to
-- stop reports this there before it closes (SLUICE_API_DRAIN), so that it gets no more requests by then. The healthy
-- instances are stored in a shared dict. If none is healthy, all are stored, since one of them may still respond.

local balancer = require("ngx.balancer")
local journal = require("sluice.platform.journal")
local resolver = require("sluice.storage.resolver")
local settings = require("sluice.platform.settings")
local timer = require("sluice.platform.timer")
local turn = require("sluice.platform.turn")

local _M = {}

local INTERVAL = 0.5
local CONNECT_MS, SEND_MS, READ_MS = 500, 500, 1000
-- If a worker is killed during a check, the others are blocked for this time.
local LOCK_SECONDS = 5

-- NGX_BUSY, "no live upstreams": nginx returns 502. The Lua module has no name for it, and other codes return 500.
local NGX_BUSY = -3

local shared = ngx.shared.instances
local next_first = 0

-- The API has a separate listener and threads for internal requests (api/gunicorn_conf.py). So clients' calls do not
-- delay them, and a busy instance is not taken for an unhealthy one.
local function own_port(port)
    return tonumber(port) + 1
end

local function is_well(address, port)
    local socket = ngx.socket.tcp()
    socket:settimeouts(CONNECT_MS, SEND_MS, READ_MS)
    local line
    if socket:connect(address, own_port(port)) and socket:send("GET /healthz HTTP/1.0\r\nHost: api\r\n\r\n") then
        line = socket:receive("*l")
    end
    socket:close()
    return line ~= nil and line:find("^HTTP/1%.[01] 200") ~= nil
end

local function ask()
    local host, port = settings.api_address:match("^(.*):(%d+)$")
    local addresses, err = resolver.fresh(host)
    if not addresses then
        -- The dict keeps the previous instances.
        return nil, "could not find the API's address: " .. err
    end
    table.sort(addresses)
    local asked, all, well = {}, {}, {}
    -- In parallel, so that an instance that hangs does not delay the check of the others.
    for i, address in ipairs(addresses) do
        asked[i] = ngx.thread.spawn(is_well, address, port)
        all[i] = address .. ":" .. port
    end
    for i, thread in ipairs(asked) do
        local _, good = ngx.thread.wait(thread)
        if good == true then
            table.insert(well, all[i])
        end
    end
    shared:set("serving", table.concat(#well > 0 and well or all, " "))
    return true
end

local function poll(premature)
    if not premature then
        turn.take(shared, LOCK_SECONDS, INTERVAL, ask, "the API's instances are not up to date")
    end
end

-- Addresses and ports, in the order in which this request tries them (round robin).
local function in_turn()
    local found = {}
    for address, port in (shared:get("serving") or ""):gmatch("(%S+):(%d+)") do
        table.insert(found, { address, tonumber(port) })
    end
    next_first = next_first + 1
    local order = {}
    for i = 1, #found do
        order[i] = found[(next_first + i) % #found + 1]
    end
    return order
end

--- Chooses an instance for a client's request, round robin. If it is unreachable, chooses the next one.
function _M.balance()
    local ctx = ngx.ctx
    if not ctx.instances then
        ctx.instances, ctx.instance = in_turn(), 0
        if #ctx.instances > 1 then
            balancer.set_more_tries(#ctx.instances - 1)
        end
    end
    ctx.instance = ctx.instance + 1
    local peer = ctx.instances[ctx.instance]
    if not peer then
        journal.note("no instance of the API is known")
        return ngx.exit(NGX_BUSY)
    end
    return assert(balancer.set_current_peer(peer[1], peer[2]))
end

--- Connects one of the edge's own questions.
-- @return true, or nil, err
function _M.connect(socket)
    if settings.api_socket ~= "" then
        return socket:connect("unix:" .. settings.api_socket .. ".internal")
    end
    local ok, err = nil, "no instance is known"
    for _, peer in ipairs(in_turn()) do
        ok, err = socket:connect(peer[1], own_port(peer[2]))
        if ok then
            break
        end
    end
    return ok, err
end

--- Starts this worker's timer; the workers take turns by a lock.
function _M.start()
    if settings.api_address == "" then
        return
    end
    timer.at_once_and_every(INTERVAL, poll, "asking for the API's instances")
end

return _M
