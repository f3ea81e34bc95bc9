--- Which tokens have ended before their expiry, by the API's feed (docs/design.md, "Revocation").
-- Once a second one worker asks the API for rows since the last id, and keeps them in a shared dict:
-- "kind:subject" → generation. A token is revoked when an entry has its generation or a higher one. How long ago the
-- last good answer was asked for says whether the dict may be trusted at all.

local cjson = require("cjson.safe")
local api = require("sluice.platform.api")
local settings = require("sluice.platform.settings")
local tier = require("sluice.limits.tier")
local timer = require("sluice.platform.timer")
local turn = require("sluice.platform.turn")

local _M = {}

-- Asking, answering and a row's own transaction must fit into the lag.
local INTERVAL = math.max(0.05, math.min(1, settings.revocation_lag / 2))
-- The feed repeats the rows of its last 10 s, because ids commit out of order. After a gap that comes near this, a row
-- could have been missed: then everything is read again.
local MAX_GAP = 5
-- Seconds beyond the lag that an answer may be late before bearer tokens are refused.
local TOLERANCE = 3
-- A worker that dies in the middle of a load blocks the others for this long.
local LOCK_SECONDS = 5
local SWEEP_SECONDS = 60

local entries = ngx.shared.revocations
local feed = ngx.shared.feed

--- The dict's keys that end a token, each followed by the token's generation. Made once for each verified token.
-- @param purpose access, link or part
-- @param claims its claims
function _M.keys(purpose, claims)
    local user = "user:" .. claims.sub
    if purpose == "access" then
        return { "session:" .. claims.sid, 0, user, claims.gen }
    elseif purpose == "link" then
        return { "link:" .. claims.jti, 0, "file:" .. claims.file, claims.fgen, user, claims.gen }
    end
    return { user, claims.gen }
end

--- Seconds since the last good answer was asked for; nil where there was none.
function _M.age()
    local good_at = feed:get("good_at")
    return good_at and ngx.now() - good_at
end

--- Whether the feed is good enough to let a token pass.
-- @param grace seconds beyond the tolerance: signed URLs outlast a restart of the API
function _M.is_fresh(grace)
    local good_at = feed:get("good_at")
    if not good_at then
        return false
    end
    local age = ngx.now() - good_at
    -- A clock that was set back would make an old answer look young.
    return age <= settings.revocation_lag + TOLERANCE + grace and age >= -TOLERANCE
end

--- Bytes that local storage has room for, as the API said along with the last revocations.
function _M.room()
    return feed:get("room") or math.huge
end

--- Why a token may not pass.
-- @param keys what keys() made of its claims
-- @param grace see is_fresh
-- @return nil, "stale" or "revoked"
function _M.check(keys, grace)
    if not _M.is_fresh(grace) then
        return "stale"
    end
    for i = 1, #keys, 2 do
        local generation = entries:get(keys[i])
        if generation and generation >= keys[i + 1] then
            return "revoked"
        end
    end
    return nil
end

-- Stores without evicting: an entry that is pushed out would be a revoked token that passes.
local function store(key, generation, seconds)
    local ok, err = entries:safe_set(key, generation, seconds)
    if not ok and err == "no memory" then
        entries:flush_expired()
        ok, err = entries:safe_set(key, generation, seconds)
    end
    return ok, err
end

local function apply(row, now)
    local kind, subject, generation, expires_at = row[2], row[3], row[4], row[5]
    if type(kind) ~= "string" or type(subject) ~= "string" or type(generation) ~= "number"
        or type(expires_at) ~= "number" then
        return nil, "a row is malformed"
    end
    local seconds = expires_at - now
    if seconds <= 0 then
        return true
    end
    local key = kind .. ":" .. subject
    local known = entries:get(key)
    if known then
        generation = math.max(known, generation)
        seconds = math.max(entries:ttl(key) or 0, seconds)
    end
    local ok, err = store(key, generation, seconds)
    if not ok then
        return nil, "could not keep a revocation: " .. err
    end
    return true
end

local function fetch(last_id)
    local status, body = api.get(string.format("/internal/revocations?after=%d", last_id))
    if not status then
        return nil, body
    end
    local page = status == 200 and cjson.decode(body)
    if type(page) ~= "table" or type(page.last_id) ~= "number" or type(page.revocations) ~= "table"
        or type(page.more) ~= "boolean" then
        return nil, "the API answered " .. status .. " with something else than revocations"
    end
    return page
end

-- Reads what is new, to the end of the feed.
local function load()
    local started = ngx.now()
    local good_at = feed:get("good_at")
    local last_id = feed:get("last_id") or 0
    if not good_at or math.abs(started - good_at) > MAX_GAP then
        last_id = 0
    end
    local more = true
    local room, tiers
    while more do
        local page, err = fetch(last_id)
        if not page then
            return nil, err
        end
        for _, row in ipairs(page.revocations) do
            local ok, problem = apply(row, started)
            if not ok then
                return nil, problem
            end
        end
        room, tiers = tonumber(page.room), page.tiers
        more = page.more
        if more and page.last_id <= last_id then
            return nil, "the feed does not advance"
        end
        last_id = page.last_id
        feed:expire("lock", LOCK_SECONDS)
    end
    -- Before the edge counts as fresh: nobody is let in by limits that are not known yet.
    local ok, err = tier.load(tiers)
    if not ok then
        return nil, err
    end
    feed:set("last_id", last_id)
    feed:set("room", room)
    feed:set("good_at", started)
    return true
end

local function poll(premature)
    tier.refresh()
    if premature then
        return
    end
    local had = turn.take(feed, LOCK_SECONDS, INTERVAL, load, "revocations are not up to date")
    if had and feed:add("sweep", true, SWEEP_SECONDS) then
        entries:flush_expired()
    end
end

--- Starts this worker's timer; the workers take turns by a lock.
function _M.start()
    timer.at_once_and_every(INTERVAL, poll, "the revocation feed")
end

return _M
