--- A download by link: whether it may go, and of which bytes. It ends no request.
-- What its functions return is what download.deliver() does: an error code; or nil and the location that sends the
-- bytes; or nil, nil and the status of an answer without any; or nothing, where this location sends them.

local conditional = require("sluice.download.conditional")
local download = require("sluice.download.download")
local settings = require("sluice.platform.settings")
local shaper = require("sluice.limits.shaper")
local target = require("sluice.download.target")
local traffic = require("sluice.limits.traffic")
local verified = require("sluice.identity.verified")

local ngx = ngx
local var = ngx.var

local _M = {}

local PROBLEMS = {
    invalid = "LINK_INVALID", expired = "LINK_EXPIRED", revoked = "LINK_REVOKED", stale = "EDGE_STALE",
}

local function check_link(text, once)
    local link, problem = verified.check("link", text, settings.link_grace, once)
    if not link then
        return nil, PROBLEMS[problem]
    end
    var.reader = once and "" or link.jti
    return link, traffic.admit("download", link)
end

--- Decides about a download by link.
-- @param once whether nobody asks with this link again
-- @param told what the API said along with it of where the bytes lie
function _M.decide(once, told)
    local method = ngx.req.get_method()
    if method ~= "GET" and method ~= "HEAD" then
        return "METHOD_NOT_ALLOWED"
    end
    -- /d/<token>/<name> or /_link/<token>/<name>; the name is decoration.
    local uri = var.uri
    local start = uri:find("/", 2, true) + 1
    local stop = uri:find("/", start, true)
    if not stop or stop == start or uri:find("/", stop + 1, true) then
        return "NOT_FOUND"
    end
    local link, code = check_link(uri:sub(start, stop - 1), once)
    if code then
        return code
    end
    local found
    found, code = target.find(link.blob, told)
    if not found then
        return code
    end
    var.subject = link.blob
    local header = ngx.header
    header["ETag"] = found.etag
    -- On a 304 too: caches take its headers over, and after an X-Accel-Redirect the API's own type stands there.
    header["Content-Type"] = link.content_type
    header["Content-Disposition"] = link.disposition
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
    return download.deliver(link, found, first, last)
end

--- Decides about the link that the API answered a bearer token with: it makes one for each such answer.
function _M.decide_content()
    return _M.decide(true, var.upstream_http_x_sluice_target)
end

--- Decides about what the edge asks itself for a paced download: a blob, and the range that was decided on.
function _M.decide_inner()
    if var.http_x_sluice_inner ~= shaper.secret() then
        return "NOT_FOUND"
    end
    local blob = var.uri:sub(2)
    local found, code = target.find(blob)
    if not found then
        return code
    end
    var.subject = blob
    local first, last = (var.http_range or ""):match("^bytes=(%d+)%-(%d+)$")
    return download.send(found, tonumber(first), tonumber(last), true)
end

return _M
