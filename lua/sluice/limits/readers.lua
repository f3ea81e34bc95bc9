--- Readers of links, who are counted separately from the owner's downloads.
-- The readers of a link may have as many connections as the owner's tier allows (`connections`). One network may have
-- half of them per link, so that one client cannot block a link for the others. All links of an account together may
-- have eight times as many. Readers use the owner's quota. But if they have used half of the daily or monthly quota, no
-- further download by a link begins. Each edge counts this half separately, since its start.
-- A table of the worker keeps the amounts that a reader holds until the end. $reading keeps the entry's number, because
-- nginx variables survive internal redirects. A killed worker loses the table and its part of the sums (holds.lua).

local holds = require("sluice.limits.holds")
local lru = require("sluice.platform.lru")

local var = ngx.var

local _M = {}

local NETWORK_SHARE, NETWORK_LEAST, ALL_LINKS, QUOTA_SHARE = 1 / 2, 2, 8, 1 / 2
local DAY = 86400

local sums = ngx.shared.quotas

-- The last network of each busy link, with the names that it is counted under: most requests need no new text.
local seen = lru.new(4096)
-- Readers of responses that are under way, by number.
local reading, last = {}, 0

--- A reader of a link.
-- @param link the link's id
-- @param network the client's
-- @param account whose file it is
-- @return account, and the names of the clock and of the three sums under which it is counted
function _M.of(link, network, account)
    local reader = seen:get(link)
    if not reader or reader.network ~= network or reader.account ~= account then
        local text = ngx.encode_base64(network, true)
        reader = {
            network = network, account = account, clock = "d:" .. link .. network, of_link = "l:" .. link .. account,
            of_network = "n:" .. link .. text .. account, of_account = "s:" .. account,
        }
        seen:set(link, reader)
    end
    return reader
end

local function take(key, most)
    if holds.take(key, 1) <= most then
        return true
    end
    holds.give(key, 1)
    return false
end

local function take_all(most, reader)
    if not take(reader.of_link, most) then
        return false
    elseif not take(reader.of_network, math.max(NETWORK_LEAST, math.floor(most * NETWORK_SHARE))) then
        holds.give(reader.of_link, 1)
        return false
    elseif not take(reader.of_account, most * ALL_LINKS) then
        holds.give(reader.of_link, 1)
        holds.give(reader.of_network, 1)
        return false
    end
    return true
end

-- The keys of the counters for the day and the month, and the seconds until each period ends.
local function periods(account)
    local now = ngx.time()
    local date = os.date("!*t", now)
    return {
        daily = { key = "d:" .. date.yday .. ":" .. account, seconds = DAY - now % DAY },
        monthly = { key = "m:" .. date.month .. ":" .. account, seconds = (32 - date.day) * DAY },
    }
end

-- Whether the readers have used up their share of the quota.
-- @return nil; or the seconds until they may download again
local function wait_for_share(account, allowed)
    for name, period in pairs(periods(account)) do
        local most = allowed[name]
        if most and (sums:get(period.key) or 0) >= most * QUOTA_SHARE then
            return period.seconds
        end
    end
    return nil
end

--- Whether a response under way is a reader's.
function _M.is_reading()
    local held = var.reading
    return held ~= nil and held ~= ""
end

--- Begins a response to a reader.
-- @param reader what of() made
-- @param allowed the account's tier
-- @return nil; or an error code, and the seconds to wait before a retry if known
function _M.begin(reader, allowed)
    local wait = allowed.quota and wait_for_share(reader.account, allowed)
    if wait then
        return "QUOTA_EXCEEDED", wait
    end
    if not take_all(allowed.connections or math.huge, reader) then
        return "CONNECTIONS_LIMITED"
    end
    last = last + 1
    reading[last] = reader
    var.reading = last
    return nil
end

--- Ends a response.
-- @param sent bytes
-- @param has_quota whether the account's tier has one
-- @return whether it was a reader's
function _M.finish(sent, has_quota)
    local number = tonumber(var.reading)
    local reader = number and reading[number]
    if not reader then
        return false
    end
    reading[number] = nil
    var.reading = ""
    holds.give(reader.of_link, 1)
    holds.give(reader.of_network, 1)
    holds.give(reader.of_account, 1)
    if has_quota and sent > 0 then
        for _, period in pairs(periods(reader.account)) do
            sums:incr(period.key, sent, 0, period.seconds)
        end
    end
    return true
end

return _M
