--- The limits of tiers. A token contains only a tier's name. The edge gets the limits from the API (SLUICE_TIERS)
-- whenever the revocation feed announces a new version. So a changed tier needs no new tokens.

local cjson = require("cjson.safe")
local api = require("sluice.platform.api")
local gcra = require("sluice.limits.gcra")
local journal = require("sluice.platform.journal")

local _M = {}

local feed = ngx.shared.feed

-- For an old API that sends no tiers: the original limits of the tier "default".
local BUILT_IN = { tiers = { default = { connections = 32 } } }
local LIMITS = { "api", "part", "download" }

local current, version

local function limit(pair)
    return type(pair) == "table" and pair[1] and pair[1] > 0 and gcra.limit(pair[1], pair[2]) or nil
end

-- 0 means no limit.
local function number(value)
    return type(value) == "number" and value > 0 and value or nil
end

local function prepare(document)
    local made = { tiers = {}, signup = limit(document.signup), signin = limit(document.signin),
        refresh = limit(document.signin),
        flush = number(document.flush) or 5 }
    for name, given in pairs(document.tiers) do
        local tier = { name = name, connections = number(given.connections), calls = number(given.calls),
            rate = number(given.rate), daily = number(given.daily), monthly = number(given.monthly) }
        tier.quota = tier.daily ~= nil or tier.monthly ~= nil
        for _, kind in ipairs(LIMITS) do
            tier[kind] = limit(given[kind])
        end
        made.tiers[name] = tier
    end
    return made
end

--- Updates this worker's tiers from the shared dict. The revocation feed's timer calls it.
function _M.refresh()
    local held = feed:get("tiers_version") or ""
    if held == version then
        return
    end
    local document = held ~= "" and cjson.decode(feed:get("tiers") or "") or BUILT_IN
    current, version = prepare(document), held
end

local function all()
    -- No request is accepted before the edge has its tiers, so they are complete here.
    if not version or version == "" then
        _M.refresh()
    end
    return current
end

--- A tier: connections, rate, quotas, and the limits api, part and download; nil means no limit.
-- @param name from a token; an unknown name, or none, means "default"
function _M.of(name)
    local tiers = all().tiers
    return tiers[name] or tiers.default
end

--- The limit per address for calls without a token: signup, signin or refresh; nil if there is none.
function _M.public(name)
    return all()[name]
end

--- Seconds between two usage reports.
function _M.flush_seconds()
    return all().flush
end

--- Fetches the tiers if the API has another version.
-- @param wanted the version in the feed; nil if there is none
-- @return true; or nil, err if the edge has no tiers at all
function _M.load(wanted)
    local held = feed:get("tiers_version")
    if not wanted or wanted == held then
        return true
    end
    local status, body = api.get("/internal/tiers")
    local document = status == 200 and cjson.decode(body)
    if type(document) ~= "table" or type(document.tiers) ~= "table" or not document.tiers.default then
        local problem = "could not get the tiers: " .. tostring(status and "the API answered " .. status or body)
        if held then
            journal.note(problem)
            return true
        end
        return nil, problem
    end
    feed:set("tiers", body)
    feed:set("tiers_version", wanted)
    _M.refresh()
    return true
end

return _M
