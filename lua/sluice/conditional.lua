--- What a download's conditions and its range leave to be sent (RFC 9110 section 13.2.2). Dates are no validators here:
-- a blob never changes, and its digest is its entity tag.

local range = require("sluice.range")

local _M = {}

-- Whether one of the header's entity tags is this one.
local function names(header, etag, weakly)
    if header:match("^%s*%*%s*$") then
        return true
    end
    -- A tag of ours holds hex digits alone, so no comma or quote of a foreign tag can look like one.
    local first, last = header:find(etag, 1, true)
    while first do
        local before = header:sub(1, first - 1)
        if weakly then
            before = before:gsub("W/$", "")
        end
        if before:match("^%s*$") or before:match(",%s*$") then
            if header:match("^%s*,", last + 1) or header:match("^%s*$", last + 1) then
                return true
            end
        end
        first, last = header:find(etag, last + 1, true)
    end
    return false
end

--- Decides.
-- @param request nginx' variables: http_if_match, http_if_none_match, http_range, http_if_range
-- @param etag a strong entity tag with its quotes
-- @param size of the content
-- @return PRECONDITION_FAILED, NOT_MODIFIED or RANGE_NOT_SATISFIABLE; or nil with first and last byte, or nil alone for
--   the whole
function _M.judge(request, etag, size)
    local if_match, if_none_match = request.http_if_match, request.http_if_none_match
    -- A weak tag never matches here (section 13.1.1), and always below.
    if if_match and not names(if_match, etag, false) then
        return "PRECONDITION_FAILED"
    end
    if if_none_match and names(if_none_match, etag, true) then
        return "NOT_MODIFIED"
    end
    local wanted, if_range = request.http_range, request.http_if_range
    -- No range of nothing can be satisfied, and none needs to be (section 14.2).
    if not wanted or size == 0 or if_range and if_range ~= etag then
        return nil
    end
    local first, last = range.select(wanted, size)
    if first == false then
        return "RANGE_NOT_SATISFIABLE"
    end
    return nil, first, last
end

return _M
