--- The target of a file, as the API describes it: the place of its bytes, its owner, its links' generation, or the
-- reason why it may not be sent. The edge asks once, then keeps the target for SLUICE_TARGET_TTL.
-- Three layers: a second in the worker, the TTL in a shared dict, the API. An answer is not believed any more once its
-- owner's row in the feed was learned after it was asked for (revocation.lua). When the API is away, what is known
-- serves for SLUICE_LINK_GRACE longer.

local cjson = require("cjson.safe")
local semaphore = require("ngx.semaphore")
local api = require("sluice.platform.api")
local disposition = require("sluice.download.disposition")
local journal = require("sluice.platform.journal")
local lru = require("sluice.platform.lru")
local metrics = require("sluice.metrics")
local revocation = require("sluice.identity.revocation")
local settings = require("sluice.platform.settings")
local traffic = require("sluice.limits.traffic")

local _M = {}

-- As short as that: a target that another worker forgot is used no longer here.
_M.NEAR_SECONDS = 1
-- Just long enough that a flood of one dead link does not reach the API.
local REFUSED_SECONDS = 1
-- Where the edge is unsure, an answer is not older than that: it is news within the lag.
local UNSURE_SECONDS = settings.revocation_lag / 2
local WAIT_SECONDS = 4
-- A replica that could not be read is reported at most once in this time, however many requests found it.
local REPORT_SECONDS = 30
-- If a file has only one replica, the API is not asked for another one again during this time.
local ALONE_SECONDS = 1
-- Error codes that the API may send instead of a target, and the meaning of its statuses if it sends another code.
local REFUSALS = { FILE_NOT_FOUND = true, LINK_REVOKED = true, FILE_CORRUPT = true, CONTENT_LOST = true }
local BY_STATUS = { [404] = "FILE_NOT_FOUND", [410] = "FILE_CORRUPT" }

local shared = ngx.shared.targets
local near = lru.new(4096)
local fetches = {}

local function is_text(value)
    return type(value) == "string"
end

local function valid(answer)
    return type(answer) == "table" and is_text(answer.storage) and is_text(answer.digest) and is_text(answer.owner)
        and is_text(answer.filename) and is_text(answer.type) and type(answer.size) == "number"
        and type(answer.generation) == "number" and (answer.storage == "empty" or is_text(answer.uri))
end

-- Computes once the values that every download of the file needs.
local function prepared(answer)
    if answer.problem then
        return answer
    end
    answer.path = answer.storage == "local" and settings.storage_root .. "/objects" .. answer.uri or nil
    answer.etag = '"' .. answer.digest .. '"'
    answer.content_type = answer.type ~= "" and answer.type or "application/octet-stream"
    answer.attachment = disposition.header("attachment", answer.filename)
    answer.inline = disposition.header("inline", answer.filename)
    answer.by_owner = traffic.party("user", answer.owner, answer.tier)
    local kind = answer.link_tier == "anonymous" and "anonymous" or "user"
    answer.by_link = traffic.party(kind, answer.owner, answer.link_tier)
    return answer
end

-- Returns the shared dict's entry, however old; nil if it must not be used at all.
local function known(file)
    local text = shared:get(file)
    local answer = text and cjson.decode(text)
    if answer and answer.owner and not revocation.is_current(answer.owner, answer.asked) then
        return nil
    end
    return answer and prepared(answer)
end

local function keep(file, answer, asked)
    answer.fetched, answer.asked = ngx.now(), asked
    local seconds = answer.problem and REFUSED_SECONDS or settings.target_ttl + settings.link_grace
    shared:set(file, cjson.encode(answer), seconds)
    return prepared(answer)
end

local function refusal(status, body)
    local answer = cjson.decode(body)
    local err = type(answer) == "table" and type(answer.error) == "table" and answer.error or {}
    return { problem = REFUSALS[err.code] and err.code or BY_STATUS[status], generation = tonumber(err.generation) }
end

local function ask(file, query, again)
    local asked = revocation.version()
    local status, body = api.get_for_request("/internal/targets/" .. file .. query)
    if not status then
        return nil, "API_UNAVAILABLE", body
    end
    if BY_STATUS[status] then
        local refused = keep(file, refusal(status, body), asked)
        return nil, refused.problem, nil, refused.generation
    end
    local answer = status == 200 and cjson.decode(body)
    if not valid(answer) then
        return nil, "API_UNAVAILABLE", "the API answered " .. status .. " for a target"
    elseif not again and not revocation.is_current(answer.owner, asked) then
        -- It may be from before what was learned meanwhile.
        return ask(file, query, true)
    end
    return keep(file, answer, asked)
end

-- One worker asks once for a file, however many requests wait for it.
local function ask_once(file, query)
    local key = file .. query
    local fetch = fetches[key]
    if fetch then
        fetch.waiters = fetch.waiters + 1
        local ok = fetch.done:wait(WAIT_SECONDS)
        fetch.waiters = fetch.waiters - 1
        if not ok then
            return nil, "API_UNAVAILABLE"
        end
        return fetch.target, fetch.code, fetch.generation
    end
    fetch = { done = semaphore.new(), waiters = 0 }
    fetches[key] = fetch
    local ok, target, code, err, generation = pcall(ask, file, query)
    fetches[key] = nil
    if not ok then
        target, code, err = nil, "INTERNAL_ERROR", target
    end
    if err then
        journal.note("could not ask for a target: " .. err)
    end
    fetch.target, fetch.code, fetch.generation = target, code, generation
    if fetch.waiters > 0 then
        fetch.done:post(fetch.waiters)
    end
    return target, code, generation
end

-- Seconds for which an answer is valid, and for which it is used while the API is away.
local function lives()
    if revocation.is_sure(settings.link_grace) then
        return settings.target_ttl, settings.target_ttl + settings.link_grace
    end
    return UNSURE_SECONDS, 0
end

--- Finds a file.
-- @param file its id, 32 hex
-- @param told the target that the API has just sent, if it did
-- @param asked revocation.version() from before the API sent it
-- @return the target, with etag, content_type, attachment, inline, by_owner and by_link; or nil, an error code and,
--   if that is LINK_REVOKED, the generation of links that stays invalid until something changes
function _M.find(file, told, asked)
    local target = near:get(file)
    if target and not target.gone and target.near_version == revocation.version() then
        metrics.add("lookups", "target", "worker")
        return target
    end
    local now = ngx.now()
    local life, lasts = lives()
    local old, code, generation = known(file), nil, nil
    metrics.add("lookups", "target", old and "edge" or "api")
    if old and old.problem then
        return nil, old.problem, old.generation
    end
    local version = revocation.version()
    if old and now < old.fetched + life then
        target = old
    else
        local answer = told and cjson.decode(told)
        if valid(answer) and answer.file == file then
            target = keep(file, answer, asked)
        else
            target, code, generation = ask_once(file, "")
        end
    end
    if not target and code == "API_UNAVAILABLE" and old and now < old.fetched + lasts then
        target = old
    end
    if not target then
        return nil, code, generation
    end
    target.near_version = version
    near:set(file, target, math.min(_M.NEAR_SECONDS, life))
    return target
end

local function forget_near(file)
    local target = near:get(file)
    if target then
        -- Callers that still hold this table check this field.
        target.gone = true
        near:delete(file)
    end
end

--- Asks for a file without using cached answers, because the cached answer was wrong.
-- @return as find()
function _M.renew(file)
    forget_near(file)
    return ask_once(file, "")
end

-- The question for another replica; why the last one failed is said once in a while.
-- @param uri of the last one; without its query it is the object
local function query_of(failed, uri, reason)
    if shared:add("report " .. uri:match("^[^?]*"), true, REPORT_SECONDS) then
        return "?failed=" .. failed .. "&reason=" .. reason
    end
    return "?failed=" .. failed
end

--- Asks for another replica of a file than those that could not be read.
-- @param failed their storages' names, joined by commas, the last one last
-- @param uri of the last one
-- @param reason why it could not be read: missing, length, error or timeout
-- @return as find(); nil alone if there is no other
function _M.replace(file, failed, uri, reason)
    local alone = "alone " .. file .. " " .. failed
    if shared:get(alone) then
        return nil
    end
    forget_near(file)
    local found, code = ask_once(file, query_of(failed, uri, reason))
    if found and found.uri == uri then
        shared:set(alone, true, ALONE_SECONDS)
        return nil
    end
    return found, code
end

--- Reports an unreadable replica of a file without waiting for the answer (for phases that cannot wait), and makes the
-- next request read another replica.
-- @param name, uri the storage's name and the replica's URI
-- @param reason as replace() has it, or cut
function _M.report(file, name, uri, reason)
    local query = query_of(name, uri, reason)
    if not query:find("&", 1, true) then
        return
    end
    local ok, err = ngx.timer.at(0, function(is_ending)
        if not is_ending then
            forget_near(file)
            ask_once(file, query)
        end
    end)
    if not ok then
        journal.note("could not report a replica: " .. err)
    end
end

return _M
