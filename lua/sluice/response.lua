--- How the edge says no: the body that all refusals have. The table is in errors.lua.
-- The API's answers have the same shape (api/core/errors.py) and pass untouched. A status is chosen by what a client's
-- retry loop will do with it; what carries retry_after is worth repeating as it is.

local cjson = require("cjson.safe")

local _M = {}

local KINDS = require("sluice.errors")

-- Each body is the same but for the request's id, which needs no escapes.
for code, kind in pairs(KINDS) do
    local body = cjson.encode({ error = { code = code, message = kind[2], request_id = "@" } })
    kind.before, kind.behind = body:match("^(.*)@(.*)$")
end

local BY_STATUS = {
    [400] = "BAD_REQUEST",
    [403] = "FORBIDDEN",
    [404] = "NOT_FOUND",
    [405] = "METHOD_NOT_ALLOWED",
    [408] = "REQUEST_TIMEOUT",
    [411] = "LENGTH_REQUIRED",
    [412] = "PRECONDITION_FAILED",
    [413] = "BODY_TOO_LARGE",
    [414] = "URI_TOO_LONG",
    [416] = "RANGE_NOT_SATISFIABLE",
    [429] = "REQUESTS_LIMITED",
    [431] = "HEADERS_TOO_LARGE",
    [501] = "METHOD_NOT_IMPLEMENTED",
    [502] = "API_UNAVAILABLE",
    [504] = "API_TIMEOUT",
    [505] = "HTTP_VERSION_UNSUPPORTED",
}

-- While nginx moves bytes from or to a storage, a failure with one of these statuses counts as the storage's.
local OF_STORAGE = {
    part = { [403] = true, [404] = true, [409] = true, [500] = true, [507] = true },
    link = { [403] = true, [404] = true, [500] = true },
    content = { [403] = true, [404] = true, [500] = true },
}

--- The code for a status that nginx made itself.
-- @param route the location's id
-- @param status nginx's status
function _M.code_of(route, status)
    if OF_STORAGE[route] and OF_STORAGE[route][status] then
        return "STORAGE_UNAVAILABLE"
    end
    return BY_STATUS[status] or (status < 500 and "BAD_REQUEST" or "INTERNAL_ERROR")
end

--- The status of a code.
function _M.status_of(code)
    return KINDS[code][1]
end

--- An error's answer.
-- @param code a key of the table above
-- @param request_id the request's id in the logs, hex
-- @return status, headers, body
function _M.error(code, request_id)
    local kind = KINDS[code]
    local headers = { ["Content-Type"] = "application/json", ["Cache-Control"] = "no-store" }
    if kind[1] == 401 then
        headers["WWW-Authenticate"] = "Bearer"
    end
    if kind[3] then
        headers["Retry-After"] = kind[3]
    end
    return kind[1], headers, kind.before .. request_id .. kind.behind
end

--- All codes, for tests.
function _M.codes()
    local codes = {}
    for code in pairs(KINDS) do
        table.insert(codes, code)
    end
    table.sort(codes)
    return codes
end

return _M
