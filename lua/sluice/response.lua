--- Every way in which the edge says no, in one table, and the body that all of them have.
-- The API's answers have the same shape (api/core/errors.py) and pass untouched. A status is chosen by what a client's
-- retry loop will do with it; what carries retry_after is worth repeating as it is.

local cjson = require("cjson.safe")

local _M = {}

local KINDS = {
    -- the request itself
    BAD_REQUEST = { 400, "The request is malformed." },
    FORBIDDEN = { 403, "This address is not open to you." },
    NOT_FOUND = { 404, "There is nothing at this address." },
    METHOD_NOT_ALLOWED = { 405, "This address does not take that method." },
    REQUEST_TIMEOUT = { 408, "The request did not arrive in time." },
    LENGTH_REQUIRED = { 411, "A Content-Length is needed." },
    LENGTH_MISMATCH = { 400, "The body has not the length that the URL was signed for." },
    PRECONDITION_FAILED = { 412, "The content is not what the request's conditions name." },
    BODY_TOO_LARGE = { 413, "The body is larger than this call takes." },
    URI_TOO_LONG = { 414, "The address is too long." },
    RANGE_NOT_SATISFIABLE = { 416, "The range lies beyond the content's end." },
    HEADERS_TOO_LARGE = { 431, "The request's headers are too large." },
    METHOD_NOT_IMPLEMENTED = { 501, "The server does not know how to do that." },
    HTTP_VERSION_UNSUPPORTED = { 505, "This version of HTTP is not spoken here." },
    -- bearer tokens
    TOKEN_MISSING = { 401, "This call needs a bearer token." },
    TOKEN_INVALID = { 401, "The token is not valid." },
    TOKEN_EXPIRED = { 401, "The token has expired." },
    TOKEN_REVOKED = { 401, "The session has ended." },
    -- links and part URLs
    LINK_INVALID = { 403, "The link is not valid." },
    LINK_EXPIRED = { 410, "The link has expired." },
    LINK_REVOKED = { 410, "The link was withdrawn." },
    FILE_NOT_FOUND = { 404, "There is no such file." },
    FILE_CORRUPT = { 410, "The stored content is damaged." },
    PART_URL_INVALID = { 403, "The part's URL is not valid." },
    PART_URL_EXPIRED = { 403, "The part's URL has expired." },
    PART_URL_REVOKED = { 403, "The part's URL was withdrawn." },
    PART_HASH_MISMATCH = { 400, "The body is not the one whose hash the URL was signed for." },
    PART_TRIES_LIMITED = { 429, "This part was sent too often; wait a little.", 60 },
    REQUESTS_LIMITED = { 429, "Too many requests; wait a little.", 1 },
    SIGNIN_LIMITED = { 429, "Too many sign-ins from this address; wait a little.", 60 },
    SIGNUPS_LIMITED = { 429, "Too many sign-ups from this address; wait a little.", 60 },
    CALLS_LIMITED = { 429, "Too many calls of this account at once; wait until one has ended.", 1 },
    CONNECTIONS_LIMITED = { 429, "Too many downloads at once; wait until one has ended.", 1 },
    BANDWIDTH_LIMITED = { 429, "More parts are being sent than the account's rate allows; wait a little.", 10 },
    QUOTA_EXCEEDED = { 429, "The account's traffic for this time is used up.", 3600 },
    PART_BUSY = { 429, "This part is being sent too often at once; wait a little.", 5 },
    UPLOAD_NOT_OPEN = { 409, "The upload's state does not allow this." },
    -- ourselves
    INTERNAL_ERROR = { 500, "Something went wrong here." },
    STORAGE_UNSUPPORTED = { 501, "The edge cannot read from this storage." },
    EDGE_STALE = { 503, "The edge does not know which tokens are still good; repeat the call.", 1 },
    API_UNAVAILABLE = { 503, "The API is away; repeat the call.", 1 },
    API_TIMEOUT = { 504, "The API did not answer in time; repeat the call.", 1 },
    STORAGE_UNAVAILABLE = { 503, "The storage is away; repeat the call.", 1 },
    STORAGE_FULL = { 507, "The storage has no room for this." },
    STORAGE_TIMEOUT = { 504, "The storage did not answer in time; repeat the call.", 1 },
}

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

-- Where nginx moves bytes from or to storage, its own failures are the storage's.
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
-- @param request_id what the logs know the request by, hex
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
