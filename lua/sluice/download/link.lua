--- A download by link: whether it may go, and of which bytes. It ends no request.
-- Its functions return the same values as download.deliver(): an error code; or nil and the location that sends the
-- bytes; or nil, nil and the status of a response without a body; or nothing, if this location sends them.
--
-- A link names a file; the API tells the rest (target.lua). The result for a link is kept with the link's claims for a
-- second, or until the feed has news, so that a busy link costs one lookup in the worker's memory.

local conditional = require("sluice.download.conditional")
local download = require("sluice.download.download")
local metrics = require("sluice.metrics")
local readers = require("sluice.limits.readers")
local revocation = require("sluice.identity.revocation")
local settings = require("sluice.platform.settings")
local shaper = require("sluice.limits.shaper")
local target = require("sluice.download.target")
local traffic = require("sluice.limits.traffic")
local verified = require("sluice.identity.verified")

local ngx = ngx
local var = ngx.var
local now_of = ngx.now
local get_method = ngx.req.get_method
local find, sub = string.find, string.sub
local add = metrics.add

local _M = {}

local PROBLEMS = { invalid = "LINK_INVALID", expired = "LINK_EXPIRED" }
local VERDICTS = { LINK_REVOKED = "revoked", EDGE_STALE = "stale" }

-- The file of a link that holds, or nil and an error code.
local function settle(link, told)
    if not revocation.has_begun() then
        return nil, "EDGE_STALE"
    elseif revocation.is_over(link.over_by) then
        return nil, "LINK_REVOKED"
    end
    local found, code, refused = target.find(link.file, told, told and tonumber(var.known_version) or 0)
    local now, is_younger = now_of(), false
    if found then
        is_younger = link.gen > found.generation
    elseif refused then
        is_younger = link.gen >= refused
    end
    if is_younger and now >= (link.renewed or 0) + target.NEAR_SECONDS then
        -- Than what is remembered.
        link.renewed = now
        found, code = target.renew(link.file)
    end
    if found and link.gen ~= found.generation then
        return nil, "LINK_REVOKED"
    end
    return found, code
end

-- Returns the cached result for a link, or computes it again if it is too old or the feed has news.
local function settled(link, told)
    local version, now = revocation.version(), now_of()
    local found = link.found
    if found and now < link.till and link.version == version and not found.gone then
        add("lookups", "target", "worker")
        return found
    end
    local code
    found, code = settle(link, told)
    link.found = found
    link.version = version
    link.till = revocation.is_sure(settings.link_grace) and now + target.NEAR_SECONDS or 0
    return found, code
end

-- Responds to the request for a file, according to its conditions and its range.
local function answer(party, found, disposition, reader)
    local header = ngx.header
    header["ETag"] = found.etag
    -- On a 304 too: caches take its headers over, and after an X-Accel-Redirect the API's own type stands there.
    header["Content-Type"] = found.content_type
    header["Content-Disposition"] = disposition == "inline" and found.inline or found.attachment
    if var.is_plain == "1" then
        return download.deliver(party, found, nil, nil, reader)
    end
    -- nginx would compare it with an mtime, or with nothing.
    if var.http_if_unmodified_since then
        ngx.req.clear_header("If-Unmodified-Since")
    end
    local verdict, first, last = conditional.judge(var, found.etag, found.size)
    if verdict == "NOT_MODIFIED" then
        return nil, nil, ngx.HTTP_NOT_MODIFIED
    elseif verdict == "RANGE_NOT_SATISFIABLE" then
        header["Content-Range"] = string.format("bytes */%d", found.size)
    end
    if verdict then
        return verdict
    end
    return download.deliver(party, found, first, last, reader)
end

-- Decides about a download.
-- @param told the file's target, sent by the API along with its redirect, whose link is used only once; nil for a link
-- that anyone may use
local function decide(is_owner, told)
    local method = get_method()
    if method ~= "GET" and method ~= "HEAD" then
        return "METHOD_NOT_ALLOWED"
    end
    -- /d/<token>/<name> or /_link/<token>/<name>; the name is decoration.
    local uri = var.uri
    local start = find(uri, "/", 2, true) + 1
    local stop = find(uri, "/", start, true)
    if not stop or stop == start or find(uri, "/", stop + 1, true) then
        return "NOT_FOUND"
    end
    local link, problem = verified.claims("link", sub(uri, start, stop - 1), is_owner)
    if not link then
        add("tokens", "link", problem)
        return PROBLEMS[problem]
    end
    local found, code = settled(link, told)
    add("tokens", "link", VERDICTS[code] or "good")
    if not found then
        return code
    end
    var.user, var.subject = found.owner, link.file
    local party = is_owner and found.by_owner or found.by_link
    -- Readers have a separate clock and separate connections per link and network: they use up none of the owner's.
    local reader = not is_owner and readers.of(link.jti, var.client_network, party.account) or nil
    code = traffic.admit("download", party, reader)
    if code then
        return code
    end
    return answer(party, found, link.disp, reader)
end

--- Decides about a download by a link that anyone may hold.
function _M.decide()
    return decide(false)
end

--- Decides about the link that the API answered a bearer token with: it makes one for each such answer.
function _M.decide_content()
    return decide(true, var.upstream_http_x_sluice_target)
end

--- Decides about the edge's inner request of a paced download: a file, and the range that was decided on.
function _M.decide_inner()
    if var.http_x_sluice_inner ~= shaper.secret() then
        return "NOT_FOUND"
    end
    local file = var.uri:sub(2)
    local found, code = target.find(file)
    if not found then
        return code
    end
    var.subject = file
    local first, last = (var.http_range or ""):match("^bytes=(%d+)%-(%d+)$")
    return download.deliver_inner(found, tonumber(first), tonumber(last))
end

return _M
