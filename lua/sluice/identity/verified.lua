--- Claims of tokens, and whether they still hold; those that this worker has verified already are remembered.
-- Holds valid tokens only, so that forged ones cannot push them out; expiry is checked on each hit.

local lru = require("sluice.platform.lru")
local metrics = require("sluice.metrics")
local revocation = require("sluice.identity.revocation")
local settings = require("sluice.platform.settings")
local token = require("sluice.identity.token")
local traffic = require("sluice.limits.traffic")

local var = ngx.var
local time = ngx.time
local add = metrics.add

local _M = {}

-- At most about 2.5 KiB each. A part's URL is used once: remembering it gains nothing.
local SLOTS = { access = 4096, link = 8192 }

local verifier
local caches = {}

--- Replaces the keys, and forgets tokens that the old keys verified.
-- @param keys list of strings, oldest first
function _M.use(keys)
    verifier = token.new(keys)
    for purpose, slots in pairs(SLOTS) do
        caches[purpose] = lru.new(slots)
    end
end

_M.use(settings.keys)

-- Computes once the values that every request with this token needs.
local function prepare(purpose, claims)
    claims.over_by = revocation.keys(purpose, claims)
    if purpose ~= "link" then
        claims.party = traffic.party("user", claims.sub, claims.tier)
    end
    return claims
end

--- The claims of a token, whether it was revoked or not.
-- @param purpose access, link or part
-- @param text the token
-- @param once whether it is not worth remembering
-- @return claims, or nil and "invalid" or "expired"
function _M.claims(purpose, text, once)
    local cache = not once and caches[purpose]
    local claims = cache and cache:get(text)
    local now = time()
    if claims then
        add("lookups", "token", "worker")
        if claims.exp <= now then
            cache:delete(text)
            return nil, "expired"
        end
        return claims
    end
    local problem
    claims, problem = verifier:verify(purpose, text, now)
    if not claims then
        return nil, problem
    end
    add("lookups", "token", "none")
    prepare(purpose, claims)
    if cache then
        cache:set(text, claims)
    end
    return claims
end

-- Returns the problem with claims whose signature is valid, or nil.
local function problem_of(claims, grace, ask)
    if not revocation.has_begun() then
        return "stale"
    elseif revocation.is_over(claims.over_by) then
        return "revoked"
    elseif ask and not revocation.is_sure(grace) then
        return ask(claims)
    end
    return nil
end

--- Verifies the token of a call or of a part, and its revocation, and notes whose it is.
-- @param purpose access or part
-- @param grace see revocation.is_sure
-- @param ask function that tells whether the token has ended if this edge cannot tell; without it, the next hop decides
-- @return claims, or nil and "invalid", "expired", "revoked" or "stale"
function _M.check(purpose, text, grace, ask)
    local claims, problem = _M.claims(purpose, text, purpose == "part")
    if claims then
        problem = problem_of(claims, grace, ask)
    end
    add("tokens", purpose, problem or "good")
    if problem then
        return nil, problem
    end
    var.user = claims.sub
    return claims
end

return _M
