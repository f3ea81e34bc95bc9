--- Rate limits: one clock per subject in a shared dict, exact across all workers of an edge.
-- The generic cell rate algorithm (ITU-T I.371 annex A) in its virtual scheduling form. A subject's clock is the time
-- until which the accepted requests use up its rate. Each request advances the clock by its cost in seconds, in one
-- atomic incr that both checks and counts. If the clock is in the past, its entry has expired, and the next incr starts
-- it at the current time. So idle subjects need no memory, and no worker has to read before it writes. If two workers
-- set an entry's expiry at the same time, the earlier expiry may win: this can waive one cost at the end of a busy
-- time, and never adds one.
--
-- If an entry is evicted, its costs are waived too. If the dict fails (no memory at all), all requests pass and the
-- error log says so: these limits protect speed, not content.

local journal = require("sluice.platform.journal")

local max, floor, ceil = math.max, math.floor, math.ceil

local _M = {}

local clocks = ngx.shared.clocks

-- Shortest expiry, in seconds: nginx counts milliseconds, and 0 would mean no expiry.
local SHORTEST = 0.001
-- Tolerance in seconds, since costs are added to epoch seconds in doubles.
local ROUNDING = 1e-6
-- If a clock is ahead of its limit by more than these costs and seconds, the machine's time was set back.
local ASTRAY_COSTS, ASTRAY_SECONDS = 64, 60

local function broken(err)
    journal.note("could not keep a limit's clock: " .. tostring(err))
end

--- A limit.
-- @param rate per second
-- @param burst most at the same moment
function _M.limit(rate, burst)
    return { cost = 1 / rate, tolerance = burst / rate, burst = burst }
end

--- Accepts or refuses one request.
-- @param key of the clock
-- @param limit what limit() made
-- @return nil if it may pass, otherwise the seconds until one may; and how far ahead the clock is, in seconds
function _M.take(key, limit)
    local cost = limit.cost
    local now = ngx.now()
    local at, err = clocks:incr(key, cost, now, max(cost, SHORTEST))
    if not at then
        broken(err)
        return nil, cost
    end
    local ahead = at - now
    if ahead <= limit.tolerance + ROUNDING then
        -- A clock that was just started has its expiry already.
        if ahead > cost + ROUNDING then
            clocks:expire(key, max(ahead, SHORTEST))
        end
        return nil, ahead
    end
    if ahead > limit.tolerance + ASTRAY_COSTS * cost + ASTRAY_SECONDS then
        clocks:delete(key)
        return nil, cost
    end
    clocks:incr(key, -cost)
    return ahead - limit.tolerance, ahead - cost
end

--- Books a cost without a limit.
-- @param cost seconds
-- @param slack seconds that an idle clock may lag behind, so that a sender that is woken late can catch up
-- @return seconds to wait; 0 or less means none
function _M.book(key, cost, slack)
    local now = ngx.now()
    local at, err = clocks:incr(key, cost, now, cost + slack)
    if not at then
        broken(err)
        return 0
    end
    clocks:expire(key, max(at - now + slack, SHORTEST))
    return at - now - cost
end

--- Whether a clock that is booked with slack is in use.
function _M.is_running(key)
    return clocks:get(key) ~= nil
end

--- Cancels a booking.
function _M.unbook(key, cost)
    clocks:incr(key, -cost)
end

--- Values of the headers RateLimit-Limit, -Remaining and -Reset (draft-ietf-httpapi-ratelimit-headers-06, section 5):
-- whole numbers; Reset is the seconds until the whole burst is available again.
-- @param ahead take()'s second result
-- @return three numbers
function _M.quota(limit, ahead)
    local remaining = floor((limit.tolerance - ahead) / limit.cost + ROUNDING)
    return limit.burst, max(0, remaining), max(0, ceil(ahead - ROUNDING))
end

return _M
