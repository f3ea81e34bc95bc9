--- A PUT of one part: whether it may come, and where its bytes go. It ends no request.

local failure = require("sluice.failure")
local limits = require("sluice.limits.limits")
local metrics = require("sluice.metrics")
local proxy = require("sluice.storage.proxy")
local revocation = require("sluice.identity.revocation")
local settings = require("sluice.platform.settings")
local shaper = require("sluice.limits.shaper")
local tier = require("sluice.limits.tier")
local traffic = require("sluice.limits.traffic")
local verified = require("sluice.identity.verified")

local ngx = ngx
local var = ngx.var

local _M = {}

local PROBLEMS = {
    invalid = "PART_URL_INVALID", expired = "PART_URL_EXPIRED", revoked = "PART_URL_REVOKED", stale = "EDGE_STALE",
}

-- A part for local storage goes into its upload's folder.
-- @param arriving bytes of all such parts that are on their way: however many are, the disk keeps its reserve
local function store(part, arriving)
    if failure.is_closed(part.upload) then
        return "UPLOAD_NOT_OPEN"
    elseif arriving > revocation.room() then
        return "STORAGE_FULL"
    end
    -- DAV would take the file's mtime from it.
    ngx.req.clear_header("Date")
    -- New with each PUT, as the bytes may be; the API knows a part by its hash.
    ngx.header["ETag"] = '"' .. var.request_id .. '"'
    ngx.req.set_uri(string.format("/%s/%d", part.upload, part.part))
    return nil
end

-- A part for a proxied storage goes to the URL in its token.
local function send_on(part)
    var.storage_kind = "s3"
    var.storage_label = part.storage
    local code = proxy.aim(part.to)
    if code then
        return code
    end
    local wait = limits.count_try(part.upload, part.part)
    metrics.add("limits", "part_tries", wait and "refused" or "passed")
    if wait then
        ngx.header["Retry-After"] = wait
        return "PART_TRIES_LIMITED"
    end
    var.storage_part = part.part
    var.storage_sha256 = part.sha256 or ""
    if part.whole then
        proxy.keep_what_is_there()
    end
    return nil, "/_storage/put"
end

-- Lets a part wait for its user's bandwidth.
local function await_time(part)
    local rate = tier.of(part.tier).rate
    local wait = rate and shaper.await_part(part.party.account, rate, part.size)
    if wait then
        ngx.header["Retry-After"] = wait
        return "BANDWIDTH_LIMITED"
    end
    return nil
end

--- Decides about a part.
-- @return an error code; or nil and the location that continues; or nothing, if this location stores it
function _M.decide()
    local text = var.uri:match("^/p/([^/]+)$")
    if not text then
        return "NOT_FOUND"
    end
    if ngx.req.get_method() ~= "PUT" then
        return "METHOD_NOT_ALLOWED"
    end
    local part, problem = verified.check("part", text, settings.link_grace, revocation.ask)
    if not part then
        return PROBLEMS[problem]
    end
    local length = var.http_content_length
    if not length then
        return "LENGTH_REQUIRED"
    end
    if tonumber(length) ~= part.size then
        return "LENGTH_MISMATCH"
    end
    local code = traffic.admit("part", part.party) or await_time(part)
    if code then
        return code
    end
    var.subject = part.upload
    local refused, arriving = traffic.begin_part(part)
    if refused then
        return refused
    end
    if part.to then
        return send_on(part)
    end
    return store(part, arriving)
end

return _M
