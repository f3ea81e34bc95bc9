--- Readers of links, who are counted separately from the owner's downloads.
-- The readers of a link may have as many connections as the owner's tier allows (`connections`). One network may have
-- half of them per link, so that one client cannot block a link for the others. All links of an account together may
-- have eight times as many. Readers use the owner's quota. But if they have used half of the daily or monthly quota, no
-- further download by a link begins. Each edge counts this half separately, since its start.
-- What a reader holds until the end stands in $reading: "<link> <network> <account>".

local holds = require("sluice.limits.holds")

local var = ngx.var

local _M = {}

local NETWORK_SHARE, NETWORK_LEAST, ALL_LINKS, QUOTA_SHARE = 1 / 2, 2, 8, 1 / 2
local DAY = 86400

local sums = ngx.shared.quotas

local function keys(link, network, account)
    return "l:" .. link .. account, "n:" .. link .. network .. account, "s:" .. account
end

local function take(key, most)
    if holds.take(key, 1) <= most then
        return true
    end
    holds.give(key, 1)
    return false
end

local function take_all(most, of_link, of_network, of_account)
    if not take(of_link, most) then
        return false
    elseif not take(of_network, math.max(NETWORK_LEAST, math.floor(most * NETWORK_SHARE))) then
        holds.give(of_link, 1)
        return false
    elseif not take(of_account, most * ALL_LINKS) then
        holds.give(of_link, 1)
        holds.give(of_network, 1)
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

--- The link of the request, or nil if it uses none.
function _M.link()
    local link = var.reader
    return link ~= "" and link or nil
end

--- Begins a response to a reader.
-- @param account whose file it is
-- @param allowed that account's tier
-- @return nil; or an error code, and the seconds to wait before a retry if known
function _M.begin(link, account, allowed)
    local wait = allowed.quota and wait_for_share(account, allowed)
    if wait then
        return "QUOTA_EXCEEDED", wait
    end
    local network = ngx.encode_base64(var.client_network, true)
    if not take_all(allowed.connections or math.huge, keys(link, network, account)) then
        return "CONNECTIONS_LIMITED"
    end
    var.reading = string.format("%s %s %s", link, network, account)
    return nil
end

--- Ends a response.
-- @param held what $reading says
-- @param sent bytes
-- @param has_quota whether the account's tier has one
function _M.finish(held, sent, has_quota)
    local link, network, account = held:match("^(%S+) (%S+) (%S+)$")
    for _, key in ipairs({ keys(link, network, account) }) do
        holds.give(key, 1)
    end
    if has_quota and sent > 0 then
        for _, period in pairs(periods(account)) do
            sums:incr(period.key, sent, 0, period.seconds)
        end
    end
end

return _M
