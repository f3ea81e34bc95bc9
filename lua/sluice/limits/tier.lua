--- What a tier allows. Tokens name a tier and nothing more; its numbers come from the API (SLUICE_TIERS), when the
-- revocation feed says that they are others than those which the edge holds. A changed tier needs no new token.

local cjson = require("cjson.safe")
local api = require("sluice.platform.api")
local gcra = require("sluice.limits.gcra")
local journal = require("sluice.platform.journal")

local _M = {}

local feed = ngx.shared.feed

-- For an API that does not say: what the tier "default" has had since the beginning.
local BUILT_IN = { tiers = { default = { connections = 32 } } }
local LIMITS = { "api", "part", "download" }

local current, version

local function limit(pair)
    return type(pair) == "table" and pair[1] and pair[1] > 0 and gcra.limit(pair[1], pair[2]) or nil
end

-- 0 stands for no limit.
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

--- Looks whether the edge holds other tiers than this worker; a timer of the revocation feed does so.
function _M.refresh()
    local held = feed:get("tiers_version") or ""
    if held == version then
        return
    end
    local document = held ~= "" and cjson.decode(feed:get("tiers") or "") or BUILT_IN
    current, version = prepare(document), held
end

local function all()
    -- Until the edge has got its tiers nobody is let in, so what is looked at here first is complete.
    if not version or version == "" then
        _M.refresh()
    end
    return current
end

--- A tier's numbers: connections, rate and quotas where there are any, and the limits api, part and download.
-- @param name as a token says it; an unknown one, or none, is "default"
function _M.of(name)
    local tiers = all().tiers
    return tiers[name] or tiers.default
end

--- The limits per address of what needs no token: signup, signin or refresh; nil where there is none.
function _M.public(name)
    return all()[name]
end

--- Seconds between two reports of usage.
function _M.flush_seconds()
    return all().flush
end

--- Gets the tiers where the API holds others than the edge.
-- @param wanted the version that the feed names; nil where it names none
-- @return true, or nil, err where the edge has none at all
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
