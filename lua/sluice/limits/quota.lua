--- Daily and monthly traffic quotas, in UTC.
-- A subject's traffic is the sum of three: what the API has booked, what this edge has not reported yet, and what
-- running responses have reserved. A response reserves its whole length when it begins; at its end, the bytes sent
-- replace the reservation. Reserving is one atomic sum (limits/holds.lua) before the comparison, so a hundred
-- concurrent downloads cannot pass a quota that has room for one. The API's sums come with each usage report. They are
-- also fetched when a subject is first seen, and then once per minute. Traffic that other edges have not reported yet
-- is unknown here. If the API is down, the last known sums are used; unknown subjects are refused for now.

local cjson = require("cjson.safe")
local semaphore = require("ngx.semaphore")
local api = require("sluice.platform.api")
local holds = require("sluice.limits.holds")
local journal = require("sluice.platform.journal")

local _M = {}

local DAY = 86400
local FRESH_SECONDS, RETRY_SECONDS = 60, 5
local WAIT_SECONDS = 4
-- Seconds for which zeros are kept, since most subjects come again.
local IDLE_SECONDS = 600

local sums = ngx.shared.quotas
local asking = {}

local function today()
    return math.floor(ngx.time() / DAY)
end

local function keep(subject, of_day, of_month, fetched)
    local text = string.format("%d %d %.0f %.0f", today(), fetched, of_day, of_month)
    local ok, err = sums:set("t:" .. subject, text, 2 * DAY)
    if not ok then
        journal.note("could not keep what a subject has used: " .. tostring(err))
    end
end

local function kept(subject)
    local text = sums:get("t:" .. subject)
    if not text then
        return nil
    end
    local day, fetched, of_day, of_month = text:match("^(%d+) (%d+) (%d+) (%d+)$")
    return tonumber(of_day), tonumber(of_month), tonumber(fetched), tonumber(day) == today()
end

local function ask(subject)
    local status, body = api.get_for_request("/internal/usage/" .. subject:gsub(":", "/"))
    local answer = status == 200 and cjson.decode(body)
    if type(answer) ~= "table" or type(answer.day) ~= "number" or type(answer.month) ~= "number" then
        journal.note("could not ask what a subject has used: " .. tostring(status and "status " .. status or body))
        return false
    end
    keep(subject, answer.day, answer.month, ngx.time())
    return true
end

-- One request per worker asks the API; the others wait for its result.
local function ask_once(subject)
    local other = asking[subject]
    if other then
        other.waiters = other.waiters + 1
        other.done:wait(WAIT_SECONDS)
        return
    end
    local mine = { done = semaphore.new(), waiters = 0 }
    asking[subject] = mine
    local ok, err = pcall(ask, subject)
    asking[subject] = nil
    if not ok then
        journal.note("could not ask what a subject has used: " .. tostring(err))
    end
    if mine.waiters > 0 then
        mine.done:post(mine.waiters)
    end
end

-- Bytes that the API has booked for a subject on this day and in this month; nil if unknown.
local function booked(subject)
    local of_day, of_month, fetched, same_day = kept(subject)
    if of_day and same_day and ngx.time() < fetched + FRESH_SECONDS then
        return of_day, of_month
    end
    ask_once(subject)
    local new_day, new_month, new_fetched, is_new = kept(subject)
    if new_day and is_new and ngx.time() < new_fetched + FRESH_SECONDS then
        return new_day, new_month
    elseif of_day then
        of_day = same_day and of_day or 0
        keep(subject, of_day, of_month, ngx.time() - FRESH_SECONDS + RETRY_SECONDS)
        return of_day, of_month
    end
    return nil
end

local function seconds_left_of_day()
    return DAY - ngx.time() % DAY
end

local function seconds_left_of_month()
    local date = os.date("!*t", ngx.time())
    local next_month = os.date("!*t", ngx.time() + (32 - date.day) * DAY)
    return (32 - date.day) * DAY - (next_month.day - 1) * DAY - ngx.time() % DAY
end

--- Reserves a response's length.
-- @param tier with daily, monthly or both
-- @return nil; or an error code, and the seconds to wait before a retry
function _M.reserve(subject, tier, length)
    local of_day, of_month = booked(subject)
    if not of_day then
        return "API_UNAVAILABLE"
    end
    local reserved = holds.take("q:" .. subject, length)
    local more = reserved + (sums:get("u:" .. subject) or 0)
    local wait
    if tier.monthly and of_month + more > tier.monthly then
        wait = seconds_left_of_month()
    elseif tier.daily and of_day + more > tier.daily then
        wait = seconds_left_of_day()
    else
        return nil
    end
    holds.give("q:" .. subject, length)
    return "QUOTA_EXCEEDED", wait
end

--- Ends a response: the bytes sent replace the reserved ones.
function _M.settle(subject, length, sent)
    if sent > 0 then
        sums:incr("u:" .. subject, sent, 0)
    end
    holds.give("q:" .. subject, length)
end

--- Whether this edge knows a subject's traffic.
function _M.is_known(subject)
    return sums:get("t:" .. subject) ~= nil
end

--- Moves the traffic of a booked report to the API's sums.
-- @param rows the report's: kind, id, day, sent, received
-- @param totals kind, id, bytes of the day, bytes of the month, for the subjects that are known here
function _M.settle_flush(rows, totals)
    for _, total in ipairs(totals) do
        keep(total[1] .. ":" .. total[2], total[3], total[4], ngx.time())
    end
    for _, row in ipairs(rows) do
        local key = "u:" .. row[1] .. ":" .. row[2]
        local left = sums:incr(key, -row[4])
        if left and left <= 0 then
            sums:expire(key, IDLE_SECONDS)
        end
    end
end

return _M
