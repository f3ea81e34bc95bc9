--- Revocations: tokens that ended before their expiry, and users whose targets must be forgotten. The API's feed lists
-- both (api/accounts/revocation_rows.py). Once per second one worker asks the API for the rows since the last one, less
-- some seconds, and keeps them in a shared dict: "kind:subject" → the lowest generation that is still valid. For a user
-- it also keeps when that was learned: answers that the API was asked for before then are not used (target.lua).
--
-- A full dict refuses no request. If a row cannot be kept, or the API sends no rows, this edge is unsure. It then uses
-- nothing that it remembers, and the API decides about each request: for a call to the API, the API itself checks
-- again; for a link or a part, the edge sends a separate request. Signed URLs outlast a restart of the API by
-- SLUICE_LINK_GRACE.

local cjson = require("cjson.safe")
local api = require("sluice.platform.api")
local journal = require("sluice.platform.journal")
local settings = require("sluice.platform.settings")
local tier = require("sluice.limits.tier")
local timer = require("sluice.platform.timer")
local turn = require("sluice.platform.turn")

local ngx = ngx
local now_of = ngx.now

local _M = {}

-- Asking, answering and a row's own transaction must fit into the lag.
local INTERVAL = math.max(0.05, math.min(1, settings.revocation_lag / 2))
-- Microseconds before the last row at which each load begins: rows may commit in another order than their timestamps.
local OVERLAP = 10 * 1000000
-- Seconds for which a user's row is known to have been seen: longer than it is repeated, and clocks differ.
local SEEN_SECONDS = 60
-- Seconds beyond the lag that an answer may be late before the edge is unsure.
local TOLERANCE = 3
-- A worker that dies in the middle of a load blocks the others for this long.
local LOCK_SECONDS = 5
local SWEEP_SECONDS = 60
-- Seconds for which a worker does not look at the shared dict again: a tenth of the least lag at most.
local GLANCE = 0.05

local KINDS = { session = true, user = true, link = true }

local entries = ngx.shared.revocations
local feed = ngx.shared.feed

local looked, good_at, version, unsure_until = -1, nil, 0, 0

-- Reads the feed's state, which all workers share.
local function look()
    local now = now_of()
    if now - looked >= GLANCE or now < looked or not good_at then
        looked = now
        good_at, version, unsure_until = feed:get("good_at"), feed:get("version") or 0, feed:get("unsure_until") or 0
    end
    return now
end

--- The dict's keys that end a token, each followed by the token's generation. Made once for each verified token.
-- @param purpose access, link or part
-- @param claims its claims
function _M.keys(purpose, claims)
    if purpose == "link" then
        return { "link:" .. claims.jti, 0 }
    end
    return { "session:" .. claims.sid, 0, "user:" .. claims.sub, claims.gen }
end

--- Returns the seconds since the request for the last good answer; nil if there was none.
function _M.age()
    local at = feed:get("good_at")
    return at and now_of() - at
end

--- Whether this edge has ever read the feed to its end. Until then it serves no request.
function _M.has_begun()
    look()
    return good_at ~= nil
end

--- Whether the edge may use cached answers.
-- @param grace seconds beyond the tolerance for which the feed may be silent
function _M.is_sure(grace)
    local now = look()
    if not good_at or now < unsure_until then
        return false
    end
    local age = now - good_at
    -- A clock that was set back would make an old answer look young.
    return age <= settings.revocation_lag + TOLERANCE + grace and age >= -TOLERANCE
end

--- A number that grows with each news from the feed. A worker then decides again about results from before.
function _M.version()
    look()
    return version
end

--- Whether an answer of the API's about a user's file is still to be believed.
-- @param owner the user's id
-- @param asked version() before it was asked for
function _M.is_current(owner, asked)
    local _, learned = entries:get("user:" .. owner)
    return not learned or learned <= asked
end

--- Bytes that local storage has room for, as the API said along with the last rows.
function _M.room()
    return feed:get("room") or math.huge
end

--- Whether a token is known to have ended.
-- @param keys what keys() made of its claims
function _M.is_over(keys)
    for i = 1, #keys, 2 do
        local generation = entries:get(keys[i])
        if generation and generation > keys[i + 1] then
            return true
        end
    end
    return false
end

--- Asks the API whether a part's token has ended, if this edge cannot tell.
-- @return nil, "revoked" or "stale"
function _M.ask(claims)
    local path = string.format("/internal/sessions/%s?user=%s&generation=%d", claims.sid, claims.sub, claims.gen)
    local status, body = api.get_for_request(path)
    local answer = status == 200 and cjson.decode(body)
    if type(answer) ~= "table" or type(answer.live) ~= "boolean" then
        journal.note("could not ask about a session: " .. tostring(status and "status " .. status or body))
        return "stale"
    end
    return not answer.live and "revoked" or nil
end

-- Stores without evicting: an entry that is pushed out would be a token that passes.
local function store(key, generation, seconds, learned)
    local ok, err = entries:safe_set(key, generation, seconds, learned)
    if not ok and err == "no memory" then
        entries:flush_expired()
        ok, err = entries:safe_set(key, generation, seconds, learned)
    end
    return ok, err
end

-- Keeps a row, or becomes unsure for as long as it would have to be kept.
local function keep(row, seconds, learned)
    local key, generation = row[1] .. ":" .. row[2], row[3]
    local known = entries:get(key)
    if known then
        generation = math.max(known, generation)
        seconds = math.max(entries:ttl(key) or 0, seconds)
    end
    local ok, err = store(key, generation, seconds, learned)
    if not ok then
        journal.note("the API is asked for each request, for a revocation could not be kept: " .. err)
        local ends = now_of() + seconds
        if ends > (feed:get("unsure_until") or 0) then
            feed:set("unsure_until", ends)
        end
    end
end

local function is_row(row)
    return type(row) == "table" and KINDS[row[1]] and type(row[2]) == "string" and type(row[3]) == "number"
        and type(row[4]) == "number" and type(row[5]) == "number"
end

-- Whether a row says what is known already. A user's says each time that something has changed; its mark may be lost,
-- and then it is taken in once more.
local function is_known(row)
    if row[1] == "user" then
        return entries:get("seen:" .. row[2]) == row[4]
    end
    return (entries:get(row[1] .. ":" .. row[2]) or 0) >= row[3]
end

-- Takes a page of rows in.
-- @return true, or nil, err
local function apply(rows)
    local now = now_of()
    local fresh = {}
    for _, row in ipairs(rows) do
        if not is_row(row) then
            return nil, "a row is malformed"
        end
        if row[5] > now and not is_known(row) then
            table.insert(fresh, row)
        end
    end
    if #fresh == 0 then
        return true
    end
    local learned = feed:incr("version", 1, 0)
    for _, row in ipairs(fresh) do
        keep(row, row[5] - now, learned)
        if row[1] == "user" and row[4] / 1000000 > now - SEEN_SECONDS then
            entries:safe_set("seen:" .. row[2], row[4], SEEN_SECONDS)
        end
    end
    -- Once more: what another worker has decided in the middle of it is decided anew.
    feed:incr("version", 1, 0)
    return true
end

local function fetch(position)
    local status, body = api.get(string.format("/internal/revocations?after=%.0f", position))
    if not status then
        return nil, body
    end
    local page = status == 200 and cjson.decode(body)
    if type(page) ~= "table" or type(page.position) ~= "number" or type(page.revocations) ~= "table"
        or type(page.more) ~= "boolean" then
        return nil, "the API answered " .. status .. " with something else than revocations"
    end
    return page
end

-- Reads the new rows, to the end of the feed. If a page is late, the next load continues after the last good page.
local function load()
    local position, started = feed:get("position") or 0, now_of()
    if not feed:get("loading") then
        position = math.max(0, position - OVERLAP)
    end
    local page, err
    repeat
        page, err = fetch(position)
        if not page then
            return nil, err
        end
        local ok
        ok, err = apply(page.revocations)
        if not ok then
            return nil, err
        end
        if page.more and page.position <= position then
            return nil, "the feed does not advance"
        end
        position = page.position
        feed:set("position", math.max(position, feed:get("position") or 0))
        feed:set("loading", page.more or nil)
        feed:expire("lock", LOCK_SECONDS)
    until not page.more
    -- Before the edge counts as ready: it admits no request while the limits are unknown.
    local ok, problem = tier.load(page.tiers)
    if not ok then
        return nil, problem
    end
    feed:set("room", tonumber(page.room))
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
