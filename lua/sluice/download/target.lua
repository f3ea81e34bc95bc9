--- Where a blob's bytes lie: asked of the API once, then kept for SLUICE_TARGET_TTL.
-- Three layers: a second in the worker, the TTL in a shared dict, the API. When the API is away, what is known serves
-- for SLUICE_LINK_GRACE longer.

local cjson = require("cjson.safe")
local semaphore = require("ngx.semaphore")
local api = require("sluice.platform.api")
local journal = require("sluice.platform.journal")
local lru = require("sluice.platform.lru")
local metrics = require("sluice.metrics")
local settings = require("sluice.platform.settings")

local _M = {}

-- As short as that: a target that another worker forgot is used no longer here.
local NEAR_SECONDS = 1
local UNKNOWN_SECONDS = 1
local WAIT_SECONDS = 4

local shared = ngx.shared.targets
local near = lru.new(4096)
local fetches = {}

local function valid(answer)
    return type(answer) == "table" and type(answer.storage) == "string" and type(answer.digest) == "string"
        and type(answer.size) == "number" and (answer.storage == "empty" or type(answer.uri) == "string")
end

local function prepared(answer)
    answer.etag = '"' .. answer.digest .. '"'
    return answer
end

-- What the shared dict knows.
local function known(blob)
    local text = shared:get(blob)
    return text and prepared(cjson.decode(text))
end

local function keep(blob, answer)
    answer.fetched = ngx.now()
    shared:set(blob, cjson.encode(answer), settings.target_ttl + settings.link_grace)
    return prepared(answer)
end

local function ask(blob)
    local status, body = api.get_for_request("/internal/targets/" .. blob)
    if not status then
        return nil, "API_UNAVAILABLE", body
    end
    if status == 404 or status == 410 then
        -- Just long enough that a flood of one dead link does not reach the API.
        local code = status == 404 and "FILE_NOT_FOUND" or "FILE_CORRUPT"
        shared:set(blob, cjson.encode({ digest = "", problem = code, fetched = ngx.now() }), UNKNOWN_SECONDS)
        return nil, code
    end
    local answer = status == 200 and cjson.decode(body)
    if not valid(answer) then
        return nil, "API_UNAVAILABLE", "the API answered " .. status .. " for a target"
    end
    return keep(blob, answer)
end

-- One worker asks once for a blob, however many requests wait for it.
local function ask_once(blob)
    local fetch = fetches[blob]
    if fetch then
        fetch.waiters = fetch.waiters + 1
        local ok = fetch.done:wait(WAIT_SECONDS)
        fetch.waiters = fetch.waiters - 1
        if not ok then
            return nil, "API_UNAVAILABLE"
        end
        return fetch.target, fetch.code
    end
    fetch = { done = semaphore.new(), waiters = 0 }
    fetches[blob] = fetch
    local ok, target, code, err = pcall(ask, blob)
    fetches[blob] = nil
    if not ok then
        target, code, err = nil, "INTERNAL_ERROR", target
    end
    if err then
        journal.note("could not ask for a target: " .. err)
    end
    fetch.target, fetch.code = target, code
    if fetch.waiters > 0 then
        fetch.done:post(fetch.waiters)
    end
    return target, code
end

--- Finds a blob.
-- @param blob its id, 32 hex
-- @param told what the API has just said of it, where it did
-- @return {storage, name, uri, size, digest, etag}, or nil and an error code
function _M.find(blob, told)
    local target = near:get(blob)
    if target then
        metrics.add("lookups", "target", "worker")
        return target
    end
    local now = ngx.now()
    local old = known(blob)
    metrics.add("lookups", "target", old and "edge" or "api")
    if old and old.problem then
        return nil, old.problem
    end
    if old and now < old.fetched + settings.target_ttl then
        near:set(blob, old, NEAR_SECONDS)
        return old
    end
    local answer, code = told and cjson.decode(told), nil
    if valid(answer) and answer.blob == blob then
        target = keep(blob, answer)
    else
        target, code = ask_once(blob)
    end
    if not target and code == "API_UNAVAILABLE" and old
        and now < old.fetched + settings.target_ttl + settings.link_grace then
        target = old
    end
    if not target then
        return nil, code
    end
    near:set(blob, target, NEAR_SECONDS)
    return target
end

--- Asks for a blob's place whatever is known: what was known did not hold.
-- @return as find()
function _M.renew(blob)
    near:delete(blob)
    return ask_once(blob)
end

--- Forgets a blob's place, which turned out wrong.
function _M.forget(blob)
    near:delete(blob)
    shared:delete(blob)
end

return _M
