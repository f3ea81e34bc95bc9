--- How fast something may go on: one clock per subject in a shared dict, exact over all workers of an edge.
-- The generic cell rate algorithm (ITU-T I.371 annex A) in its virtual scheduling form. A clock says until when what
-- was let through has used up its subject's rate; each booking moves it on by its cost in seconds, in one atomic incr
-- that is check and count at once. A clock that time has caught up with is an entry that has expired, and the next
-- incr starts it at now: idle subjects take no memory, and nobody has to read before writing. Where two workers set
-- the entry's end at once, the sooner one may win: that forgives one cost at the end of a busy time, and never takes
-- one.
--
-- What is evicted from the dict is forgiven as well. When the dict is broken (no memory at all), everything passes and
-- the journal says so: these limits protect speed, not content.

local journal = require("sluice.platform.journal")

local max, floor, ceil = math.max, math.floor, math.ceil

local _M = {}

local clocks = ngx.shared.clocks

-- An entry's life is counted in milliseconds, and none at all means for ever.
local SHORTEST = 0.001
-- Costs are added to the seconds since 1970 in doubles.
local ROUNDING = 1e-6
-- A clock that is ahead by more than a limit allows and so many costs and seconds: the machine's own time was set back.
local ASTRAY_COSTS, ASTRAY_SECONDS = 64, 60

local function broken(err)
    journal.note("could not keep a limit's clock: " .. tostring(err))
end

--- A limit.
-- @param rate so many a second
-- @param burst so many at once
function _M.limit(rate, burst)
    return { cost = 1 / rate, tolerance = burst / rate, burst = burst }
end

--- Lets one through, or not.
-- @param key whose clock
-- @param limit what limit() made
-- @return nil where it may pass, otherwise the seconds until one may; and how far ahead the clock is
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
        -- A clock that was just started has its end already.
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

--- Books a cost, however far the clock is ahead.
-- @param cost seconds
-- @param slack seconds that an idle clock lags behind: what lets a pace be kept by who is woken late
-- @return seconds until the booking's turn, 0 or less: now
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

--- Whether a clock that is booked with some slack was booked a moment ago.
function _M.is_running(key)
    return clocks:get(key) ~= nil
end

--- Takes a booking back.
function _M.unbook(key, cost)
    clocks:incr(key, -cost)
end

--- What a client is told of a limit: RateLimit-Limit, -Remaining and -Reset of draft-ietf-httpapi-ratelimit-headers-06,
-- section 5: three fields, whole numbers, seconds until all of it is there again.
-- @param ahead what take() said
-- @return three numbers
function _M.quota(limit, ahead)
    local remaining = floor((limit.tolerance - ahead) / limit.cost + ROUNDING)
    return limit.burst, max(0, remaining), max(0, ceil(ahead - ROUNDING))
end

return _M
