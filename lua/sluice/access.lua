--- Who may do what at the edge. The only file that ends a request.
-- A location's function decides, and either lets nginx go on or names an error code and leaves for /_error, where
-- refuse() answers. By that way nginx sends no "100 Continue" to a client whose body is not wanted.

local conditional = require("sluice.conditional")
local journal = require("sluice.journal")
local response = require("sluice.response")
local revocation = require("sluice.revocation")
local settings = require("sluice.settings")
local target = require("sluice.target")
local verified = require("sluice.verified")

local ngx = ngx
local var = ngx.var
local get_method = ngx.req.get_method

local _M = {}

-- Calls that are there before anybody has a token; an Authorization header, even a bad one, means nothing to them.
local PUBLIC = {
    ["POST /api/v1/users"] = true,
    ["POST /api/v1/sessions"] = true,
    ["POST /api/v1/sessions/refresh"] = true,
}

local BEARER_PROBLEMS = {
    invalid = "TOKEN_INVALID", expired = "TOKEN_EXPIRED", revoked = "TOKEN_REVOKED", stale = "EDGE_STALE",
}
local PART_PROBLEMS = {
    invalid = "PART_URL_INVALID", expired = "PART_URL_EXPIRED", revoked = "PART_URL_REVOKED", stale = "EDGE_STALE",
}
local LINK_PROBLEMS = {
    invalid = "LINK_INVALID", expired = "LINK_EXPIRED", revoked = "LINK_REVOKED", stale = "EDGE_STALE",
}
local ALLOWED = { part = "PUT", link = "GET, HEAD", content = "GET, HEAD" }

local ENOENT = 2 -- errno(3)

-- Runs a decision; a code that it returns is the refusal.
local function decide(decision)
    local ok, code = pcall(decision)
    if not ok then
        journal.note("a decision failed: " .. tostring(code))
        code = "INTERNAL_ERROR"
    end
    if code then
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

-- Verifies a token and its revocation.
local function check(purpose, text, grace)
    local claims, problem = verified.claims(purpose, text)
    if not claims then
        return nil, problem
    end
    problem = revocation.check(claims.revoked_by, grace)
    if problem then
        return nil, problem
    end
    var.user = claims.sub
    return claims
end

local function decide_bearer()
    if PUBLIC[get_method() .. " " .. var.uri] then
        ngx.req.clear_header("Authorization")
        return nil
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
    return not claims and BEARER_PROBLEMS[problem] or nil
end

local function decide_ready()
    return not revocation.is_fresh(0) and "EDGE_STALE" or nil
end

-- Whether a folder is known not to be there. One that a failing disk does not show is no such folder.
local function folder_is_gone(path)
    local folder, _, errno = io.open(path, "r")
    if folder then
        folder:close()
    end
    return not folder and errno == ENOENT
end

local function part_folder(upload)
    return settings.storage_root .. "/parts/" .. upload
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
    if folder_is_gone(part_folder(part.upload)) then
        return "UPLOAD_NOT_OPEN"
    end
    var.subject = part.upload
    -- DAV would take the file's mtime from it.
    ngx.req.clear_header("Date")
    -- New with each PUT, as the bytes may be; the API knows a part by its hash.
    ngx.header["ETag"] = '"' .. var.request_id .. '"'
    ngx.req.set_uri(string.format("/%s/%d", part.upload, part.part))
    return nil
end

-- Lets nginx send a blob's bytes.
local function deliver(found)
    if found.storage == "local" then
        ngx.req.set_uri(found.uri)
        return nil
    elseif found.storage == "empty" then
        -- No range of nothing can be satisfied, and none needs to be (RFC 9110 section 14.2): the whole is sent.
        ngx.header["Content-Length"] = 0
        ngx.header["Accept-Ranges"] = "bytes"
        return finish(ngx.HTTP_OK)
    end
    -- Proxied storages come in here, by ngx.exec into an internal location of their own.
    return "STORAGE_UNSUPPORTED"
end

local function decide_link()
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
    local link, problem = check("link", uri:sub(start, stop - 1), settings.link_grace)
    if not link then
        return LINK_PROBLEMS[problem]
    end
    local found, code = target.find(link.blob)
    if not found then
        return code
    end
    var.subject = link.blob
    local header = ngx.header
    header["ETag"] = found.etag
    -- On a 304 too: caches take its headers over, and after an X-Accel-Redirect the API's own type stands there.
    header["Content-Type"] = link.content_type
    header["Content-Disposition"] = link.disposition
    local condition = var.http_if_none_match
    if condition and conditional.matches(condition, found.etag) then
        return finish(ngx.HTTP_NOT_MODIFIED)
    end
    if var.http_if_unmodified_since then
        -- nginx would compare it with an mtime that no client was told.
        ngx.req.clear_header("If-Unmodified-Since")
    end
    return deliver(found)
end

-- A storage failed after a decision to use it.
local function storage_failed(route, status)
    local subject = var.subject
    if route == "part" then
        -- The folder went away while the body came: complete or abort won the race.
        if subject ~= "" and folder_is_gone(part_folder(subject)) then
            return "UPLOAD_NOT_OPEN"
        end
        journal.note("local storage could not take a part of upload " .. subject .. " (" .. status .. ")")
    else
        target.forget(subject)
        journal.note("local storage could not give blob " .. subject .. " (" .. status .. ")")
    end
    return "STORAGE_UNAVAILABLE"
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
    return decide(decide_link)
end

--- Answers a refusal: Lua's code, or the one for nginx's status.
function _M.refuse()
    local route = var.route
    local code = var.failure
    if code == nil or code == "" then
        local status = ngx.status
        code = response.code_of(route, status)
        if code == "STORAGE_UNAVAILABLE" then
            code = storage_failed(route, status)
        end
    end
    local status, headers, body = response.error(code, var.request_id)
    ngx.status = status
    -- What stands there already: the blob's, and what nginx' add_header gave a 416 and gives again.
    for _, name in ipairs({ "ETag", "Content-Disposition", "Cache-Control", "X-Request-Id" }) do
        ngx.header[name] = nil
    end
    for name, value in pairs(headers) do
        ngx.header[name] = value
    end
    if code == "METHOD_NOT_ALLOWED" and ALLOWED[route] then
        ngx.header["Allow"] = ALLOWED[route]
    end
    ngx.header["Content-Length"] = #body
    ngx.req.discard_body()
    ngx.print(body)
    return ngx.exit(ngx.HTTP_OK)
end

return _M
