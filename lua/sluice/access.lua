--- Access control of the edge. The only file that ends a request.
-- A location's function either lets nginx continue, or sets an error code and redirects to /_error, where refuse()
-- sends the response. So nginx sends no "100 Continue" to a client whose body is refused.

local api = require("sluice.platform.api")
local calls = require("sluice.limits.calls")
local download = require("sluice.download.download")
local failure = require("sluice.failure")
local journal = require("sluice.platform.journal")
local link = require("sluice.download.link")
local metrics = require("sluice.metrics")
local part = require("sluice.storage.part")
local proxy = require("sluice.storage.proxy")
local response = require("sluice.response")
local revocation = require("sluice.identity.revocation")
local tier = require("sluice.limits.tier")
local traffic = require("sluice.limits.traffic")
local verified = require("sluice.identity.verified")

local ngx = ngx
local var = ngx.var
local get_method = ngx.req.get_method

local _M = {}

-- Calls without a token; they ignore an Authorization header, even an invalid one. Each with its limit per address, in
-- addition to nginx's limits, and the error code of that limit.
local PUBLIC = {
    ["POST /api/v1/users"] = { "signup", "SIGNUPS_LIMITED" },
    ["POST /api/v1/sessions"] = { "signin", "SIGNIN_LIMITED" },
    ["POST /api/v1/sessions/refresh"] = { "refresh", "REQUESTS_LIMITED" },
    ["GET /api/v1/openapi.json"] = {},
}

-- Methods that the API's framework knows; it treats all others as malformed.
local METHODS = { GET = true, HEAD = true, POST = true, PUT = true, PATCH = true, DELETE = true, OPTIONS = true }

-- Longest Authorization header that is parsed, in bytes; an access token has at most 2,048.
local MAX_AUTHORIZATION = 2560

local BEARER_PROBLEMS = {
    invalid = "TOKEN_INVALID", expired = "TOKEN_EXPIRED", revoked = "TOKEN_REVOKED", stale = "EDGE_STALE",
}
local ALLOWED = { part = "PUT", link = "GET, HEAD", content = "GET, HEAD", metrics = "GET, HEAD" }

local NOT_ON_ERRORS = {
    "ETag", "Content-Disposition", "Accept-Ranges", "Cache-Control", "X-Request-Id", "WWW-Authenticate",
}

-- Content-Security-Policy of responses that are no downloads, as in gateway.conf.template.
local POLICY = "default-src 'none'; frame-ancestors 'none'"

-- Errors of links that are decided before any response header was set.
local BARE = { LINK_INVALID = true, LINK_EXPIRED = true, LINK_REVOKED = true }

-- Removes headers that are already set: the blob's, a storage's, and those that nginx's add_header sets again.
local function clear_headers(header, code)
    for _, name in ipairs(NOT_ON_ERRORS) do
        header[name] = nil
    end
    if code ~= "RANGE_NOT_SATISFIABLE" then
        header["Content-Range"] = nil
    end
end

-- Sends an error response.
-- @param is_bare whether no header is set yet, and no body comes
local function answer(route, code, is_bare)
    metrics.add("failures", route ~= "" and route or "other", code)
    local status, headers, body = response.error(code, var.request_id)
    local header = ngx.header
    ngx.status = status
    if is_bare then
        var.policy_of_refusal = POLICY
    else
        clear_headers(header, code)
    end
    headers["Retry-After"] = header["Retry-After"] or headers["Retry-After"]
    for name, value in pairs(headers) do
        header[name] = value
    end
    if code == "METHOD_NOT_ALLOWED" and ALLOWED[route] then
        header["Allow"] = ALLOWED[route]
    end
    header["Content-Length"] = #body
    if not is_bare then
        ngx.req.discard_body()
    end
    ngx.print(body)
    return ngx.exit(ngx.HTTP_OK)
end

-- Ends a request that needs no bytes from anywhere.
local function finish(status)
    ngx.status = status
    ngx.req.discard_body()
    ngx.send_headers()
    return ngx.exit(ngx.HTTP_OK)
end

-- Runs a decision, and does as it says.
-- @param decision returns an error code; or nil and an internal location that continues; or nil, nil and the status of
-- a response without a body; or nothing, if nginx continues in this location
local function decide(decision)
    local ok, code, place, status = pcall(decision)
    if not ok then
        journal.note("a decision failed: " .. tostring(code))
        code = "INTERNAL_ERROR"
    end
    if code then
        if BARE[code] and var.route == "link" and not var.http_content_length and not var.http_transfer_encoding then
            -- Immediately, so that a forged token costs no more than a valid one.
            return answer("link", code, true)
        end
        var.failure = code
        return ngx.exit(response.status_of(code))
    elseif place then
        return ngx.exec(place)
    elseif status then
        return finish(status)
    end
end

-- Responds to a PUT whose bytes are already stored, because the response to an earlier PUT was lost.
local function finish_stored()
    clear_headers(ngx.header)
    ngx.header["Content-Length"] = 0
    return finish(ngx.HTTP_OK)
end

local function decide_bearer()
    local public = PUBLIC[get_method() .. " " .. var.uri]
    if public then
        ngx.req.clear_header("Authorization")
        local refused = public[1] and traffic.admit_stranger(public[1], public[2])
        return refused or calls.begin_stranger(var.client_network)
    end
    if not METHODS[get_method()] then
        return "METHOD_NOT_IMPLEMENTED"
    end
    local header = var.http_authorization
    if not header then
        return "TOKEN_MISSING"
    end
    local text = #header <= MAX_AUTHORIZATION and header:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)$")
    local claims, problem = nil, "invalid"
    if text then
        claims, problem = verified.check("access", text)
    end
    if not claims then
        return BEARER_PROBLEMS[problem]
    elseif claims.role == "admin" and var.admin_address == "0" then
        return "FORBIDDEN"
    end
    if not revocation.is_sure(0) then
        -- The API looks for itself (api/http/middleware.py).
        var.unsure = "1"
    end
    -- Before the API reads what it may tell along with its answer (link.decide_content).
    var.known_version = revocation.version()
    local party = claims.party
    return traffic.admit("api", party) or calls.begin(party.account, tier.of(party.tier).calls)
end

local function decide_ready()
    return not (revocation.has_begun() and revocation.is_sure(0)) and "EDGE_STALE" or nil
end

-- Responds to a download whose bytes are sent by Lua.
local function decide_paced()
    local code, is_cut = download.send_paced()
    -- Too short: nginx closes the connection, so that no client takes it for the whole file.
    return is_cut and ngx.exit(ngx.ERROR) or code
end

--- The bearer token of a call to the API.
function _M.bearer()
    local path = var.uri
    if path:find("[\128-\255]") then
        -- A log line is JSON, and so UTF-8; a path's bytes may be anything.
        var.log_path = (path:gsub("[\128-\255]", "?"))
    end
    return decide(decide_bearer)
end

--- Readiness of the edge itself; the API reports on all else.
function _M.ready()
    return decide(decide_ready)
end

--- A part of an upload.
function _M.part()
    return decide(part.decide)
end

--- A download by link.
function _M.link()
    return decide(link.decide)
end

--- A download by the link that the API returned for a bearer token.
function _M.content()
    calls.finish()
    -- The API's Cache-Control was meant for the API's response, but nginx keeps it across the X-Accel-Redirect.
    ngx.header["Cache-Control"] = nil
    return decide(link.decide_content)
end

--- A download limited to its tier's rate.
function _M.paced()
    return decide(decide_paced)
end

--- The inner request for the bytes of a rate-limited download.
function _M.inner()
    return decide(link.decide_inner)
end

--- The metrics of this edge, and of the API and the workers.
function _M.metrics()
    local method = get_method()
    if method ~= "GET" and method ~= "HEAD" then
        var.failure = "METHOD_NOT_ALLOWED"
        return ngx.exit(ngx.HTTP_NOT_ALLOWED)
    end
    local status, body = api.get("/internal/metrics")
    ngx.header["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
    ngx.print(metrics.text(revocation.age()), "# HELP sluice_edge_api_up Whether the API gave its figures\n",
        "# TYPE sluice_edge_api_up gauge\nsluice_edge_api_up ", status == 200 and "1\n" or "0\n",
        status == 200 and body or "")
end

--- Sends an error response: Lua's code, or the one for nginx's status.
function _M.refuse()
    if ngx.is_subrequest then
        -- A piece in the middle of a response: the response ends here, shorter than announced.
        return ngx.exit(ngx.ERROR)
    end
    local route = var.route
    local code = var.failure
    if (code == nil or code == "") and proxy.is_stored_already() then
        return finish_stored()
    end
    if code == nil or code == "" then
        local place
        code, place = failure.code_of(route, ngx.status)
        if not code then
            -- Clears nginx's error.
            ngx.status = 0
            return ngx.exec(place)
        end
    end
    return answer(route, code)
end

return _M
