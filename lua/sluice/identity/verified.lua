--- Claims of tokens, and whether they still hold; those that this worker has verified already are remembered.
-- Holds good tokens only, so that forged ones cannot push them out; expiry is checked on each hit.

local lru = require("sluice.platform.lru")
local metrics = require("sluice.metrics")
local revocation = require("sluice.identity.revocation")
local settings = require("sluice.platform.settings")
local token = require("sluice.identity.token")
local disposition = require("sluice.download.disposition")
local traffic = require("sluice.limits.traffic")

local var = ngx.var

local _M = {}

-- At most about 2.5 KiB each. A part's URL is used once: remembering it gains nothing.
local SLOTS = { access = 4096, link = 8192 }

local verifier
local caches = {}

--- Takes keys: what others verified is forgotten.
-- @param keys list of strings, oldest first
function _M.use(keys)
    verifier = token.new(keys)
    for purpose, slots in pairs(SLOTS) do
        caches[purpose] = lru.new(slots)
    end
end

_M.use(settings.keys)

-- What every request with this token needs is made once.
local function prepare(purpose, claims)
    claims.revoked_by = revocation.keys(purpose, claims)
    traffic.prepare(purpose, claims)
    if purpose == "link" then
        claims.disposition = disposition.header(claims.disp, claims.name)
        claims.content_type = claims.type ~= "" and claims.type or "application/octet-stream"
    end
    return claims
end

--- The claims of a token.
-- @param purpose access, link or part
-- @param text the token
-- @param once whether it is not worth remembering
-- @return claims, or nil and "invalid" or "expired"
function _M.claims(purpose, text, once)
    local cache = not once and caches[purpose]
    local claims = cache and cache:get(text)
    local now = ngx.time()
    if claims then
        metrics.add("lookups", "token", "worker")
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
    metrics.add("lookups", "token", "none")
    prepare(purpose, claims)
    if cache then
        cache:set(text, claims)
    end
    return claims
end

--- Verifies a token and its revocation, and notes whose it is.
-- @param grace see revocation.is_fresh
-- @return claims, or nil and "invalid", "expired", "revoked" or "stale"
function _M.check(purpose, text, grace, once)
    local claims, problem = _M.claims(purpose, text, once)
    if claims then
        problem = revocation.check(claims.revoked_by, grace)
    end
    metrics.add("tokens", purpose, problem or "good")
    if problem then
        return nil, problem
    end
    var.user = claims.sub
    return claims
end

return _M
