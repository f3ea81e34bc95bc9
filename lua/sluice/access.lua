--- Who may do what at the edge. The only file that ends a request.
-- A location's function decides, and either lets nginx go on or names an error code and leaves for /_error, where
-- refuse() answers. By that way nginx sends no "100 Continue" to a client whose body is not wanted.

local api = require("sluice.api")
local conditional = require("sluice.conditional")
local download = require("sluice.download")
local failure = require("sluice.failure")
local grant = require("sluice.grant")
local journal = require("sluice.journal")
local limits = require("sluice.limits")
local metrics = require("sluice.metrics")
local proxy = require("sluice.proxy")
local response = require("sluice.response")
local revocation = require("sluice.revocation")
local settings = require("sluice.settings")
local shaper = require("sluice.shaper")
local target = require("sluice.target")
local tier = require("sluice.tier")
local traffic = require("sluice.traffic")
local verified = require("sluice.verified")

local ngx = ngx
local var = ngx.var
local get_method = ngx.req.get_method

local _M = {}

-- Calls that are there before anybody has a token; an Authorization header, even a bad one, means nothing to them.
-- Each with the limit per address that it has beside nginx' own, and the code that says so.
local PUBLIC = {
    ["POST /api/v1/users"] = { "signup", "SIGNUPS_LIMITED" },
    ["POST /api/v1/sessions"] = { "signin", "SIGNIN_LIMITED" },
    ["POST /api/v1/sessions/refresh"] = {},
}

-- What the API's framework knows; it calls anything else malformed.
local METHODS = { GET = true, HEAD = true, POST = true, PUT = true, PATCH = true, DELETE = true, OPTIONS = true }

local BEARER_PROBLEMS = {
    invalid = "TOKEN_INVALID", expired = "TOKEN_EXPIRED", revoked = "TOKEN_REVOKED", stale = "EDGE_STALE",
}
local PART_PROBLEMS = {
    invalid = "PART_URL_INVALID", expired = "PART_URL_EXPIRED", revoked = "PART_URL_REVOKED", stale = "EDGE_STALE",
}
local LINK_PROBLEMS = {
    invalid = "LINK_INVALID", expired = "LINK_EXPIRED", revoked = "LINK_REVOKED", stale = "EDGE_STALE",
}
local ALLOWED = { part = "PUT", link = "GET, HEAD", content = "GET, HEAD", metrics = "GET, HEAD" }

-- How the text of a share's token begins: base64url of {"share":. It only says which signature to look for, so that a
-- forged token costs one HMAC and not two.
local SHARE = "eyJzaGFyZSI6"

local NOT_ON_ERRORS = {
    "ETag", "Content-Disposition", "Accept-Ranges", "Cache-Control", "X-Request-Id", "WWW-Authenticate",
}

-- Content-Security-Policy of what is no download, as in gateway.conf.template.
local POLICY = "default-src 'none'; frame-ancestors 'none'"

-- Said of a link before any header is set.
local BARE = { LINK_INVALID = true, LINK_EXPIRED = true, LINK_REVOKED = true }

-- Removes what stands there already: the blob's, what nginx' add_header gave a 416 and gives again, a storage's.
local function clear_headers(header, code)
    for _, name in ipairs(NOT_ON_ERRORS) do
        header[name] = nil
    end
    if code ~= "RANGE_NOT_SATISFIABLE" then
        header["Content-Range"] = nil
    end
end

-- Answers with an error.
-- @param is_bare whether no header is set yet, and no body comes
local function answer(route, code, is_bare)
    metrics.add("failures", route ~= "" and route or "other", code)
    local status, headers, body = response.error(code, var.request_id)
    local header = ngx.header
    ngx.status = status
    if is_bare then
        var.policy = POLICY
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

-- Runs a decision; a code that it returns is the refusal.
local function decide(decision)
    local ok, code = pcall(decision)
    if not ok then
        journal.note("a decision failed: " .. tostring(code))
        code = "INTERNAL_ERROR"
    end
    if code then
        if BARE[code] and var.route == "link" and not var.http_content_length and not var.http_transfer_encoding then
            -- At once: what is forged costs no more than what is good.
            return answer("link", code, true)
        end
        var.failure = code
        return ngx.exit(response.status_of(code))
    end
end

-- Ends a request that needs no bytes from anywhere.
local function finish(status)
    ngx.status = status
    ngx.req.discard_body()
    ngx.send_headers()
    return ngx.exit(ngx.HTTP_OK)
end

-- Answers a PUT whose bytes are there: an earlier one's answer was lost.
local function finish_stored()
    clear_headers(ngx.header)
    ngx.header["Content-Length"] = 0
    return finish(ngx.HTTP_OK)
end

-- Verifies a token and its revocation.
local function check(purpose, text, grace, once)
    local claims, problem = verified.claims(purpose, text, once)
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

local function decide_bearer()
    local public = PUBLIC[get_method() .. " " .. var.uri]
    if public then
        ngx.req.clear_header("Authorization")
        return traffic.admit_stranger(public[1], public[2])
    end
    if not METHODS[get_method()] then
        return "METHOD_NOT_IMPLEMENTED"
    end
    local header = var.http_authorization
    if not header then
        return "TOKEN_MISSING"
    end
    local text = header:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)$")
    local claims, problem = nil, "invalid"
    if text then
        claims, problem = check("access", text, 0)
    end
    if not claims then
        return BEARER_PROBLEMS[problem]
    elseif claims.role == "admin" and var.admin_address == "0" then
        return "FORBIDDEN"
    end
    return traffic.admit("api", claims)
end

local function decide_ready()
    return not revocation.is_fresh(0) and "EDGE_STALE" or nil
end

-- A part for local storage goes into its upload's folder.
-- @param arriving bytes of all such parts that are on their way: however many are, the disk keeps its reserve
local function store(part, arriving)
    if failure.is_closed(part.upload) then
        return "UPLOAD_NOT_OPEN"
    elseif arriving > revocation.room() then
        return "STORAGE_FULL"
    end
    var.part = part.upload .. "/" .. part.part
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
    var.storage_sha256 = part.sha256
    if part.signature then
        proxy.complete_aim(part.signature)
    end
    return ngx.exec("/_storage/put")
end

-- Lets a part wait for its user's bandwidth.
local function await_time(part)
    local rate = tier.of(part.tier).rate
    local wait = rate and shaper.await_part(part.account, rate, part.size)
    if wait then
        ngx.header["Retry-After"] = wait
        return "BANDWIDTH_LIMITED"
    end
    return nil
end

local function decide_part()
    local text = var.uri:match("^/p/([^/]+)$")
    if not text then
        return "NOT_FOUND"
    end
    if get_method() ~= "PUT" then
        return "METHOD_NOT_ALLOWED"
    end
    local part, problem = check("part", text, settings.link_grace)
    if not part then
        return PART_PROBLEMS[problem]
    end
    local length = var.http_content_length
    if not length then
        return "LENGTH_REQUIRED"
    end
    if tonumber(length) ~= part.size then
        return "LENGTH_MISMATCH"
    end
    local code = traffic.admit("part", part) or await_time(part)
    if code then
        return code
    end
    var.subject = part.upload
    local arriving = traffic.begin_part(part)
    return part.to and send_on(part) or store(part, arriving)
end

-- Goes on as download.lua says.
-- @param code an error code, or nil
-- @param place the internal location that sends the bytes
-- @param status of an answer without any
local function conclude(code, place, status)
    if place then
        return ngx.exec(place)
    end
    return status and finish(status) or code
end

-- A link, or a share's download.
local function check_link(text, once)
    local purpose = text:sub(1, #SHARE) == SHARE and "share" or "link"
    local link, problem = check(purpose, text, settings.link_grace, once)
    if not link then
        return nil, LINK_PROBLEMS[problem]
    end
    return link, link.share and grant.check(link, var.remote_addr) or traffic.admit("download", link)
end

-- @param told what the API said along with it of where the bytes lie
local function decide_link(once, told)
    local method = get_method()
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
        return finish(ngx.HTTP_NOT_MODIFIED)
    elseif verdict == "RANGE_NOT_SATISFIABLE" then
        header["Content-Range"] = string.format("bytes */%d", found.size)
    end
    return verdict or conclude(download.deliver(link, found, first, last))
end

-- The API makes a link for each such answer: nobody ever asks with it again.
local function decide_content()
    return decide_link(true, var.upstream_http_x_sluice_target)
end

-- What the edge asks itself for a paced download: a blob, and the range that was decided on.
local function decide_inner()
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
    return conclude(download.send(found, tonumber(first), tonumber(last), true))
end

-- Answers a download whose bytes are sent by Lua.
local function decide_paced()
    local code, is_cut = download.send_paced()
    -- Too short: nginx hangs up, so that nobody takes it for the whole.
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

--- Whether the edge itself is ready; the API is asked about the rest.
function _M.ready()
    return decide(decide_ready)
end

--- A part of an upload.
function _M.part()
    return decide(decide_part)
end

--- A download by link.
function _M.link()
    return decide(decide_link)
end

--- A download by the link that the API answered a bearer token with.
function _M.content()
    -- What the API said about its own answer came along with its X-Accel-Redirect.
    ngx.header["Cache-Control"] = nil
    return decide(decide_content)
end

--- A download at the pace of its tier's rate.
function _M.paced()
    return decide(decide_paced)
end

--- The edge's own question for a paced download's bytes.
function _M.inner()
    return decide(decide_inner)
end

--- The figures of this edge, and of the API and the workers that count with it.
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

--- Answers a refusal: Lua's code, or the one for nginx's status.
function _M.refuse()
    if ngx.is_subrequest then
        -- A piece in the middle of an answer: it ends there, short of its length.
        return ngx.exit(ngx.ERROR)
    end
    local route = var.route
    local code = var.failure
    if (code == nil or code == "") and proxy.is_stored_already() then
        return finish_stored()
    end
    if code == nil or code == "" then
        code = failure.code_of(route, ngx.status)
        if not code then
            -- Forgets nginx' error.
            ngx.status = 0
            return ngx.exec(var.storage_place)
        end
    end
    return answer(route, code)
end

return _M
