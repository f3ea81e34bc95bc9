--- Evaluates a download's conditions and range: which bytes are to be sent (RFC 9110 section 13.2.2). Dates are not
-- used as validators: a blob never changes, and its digest is its entity tag.

local range = require("sluice.download.range")

local _M = {}

-- Elements of one list; browsers and caches send one to three. A longer list matches nothing.
local MOST_ELEMENTS = 64

local find, sub = string.find, string.sub

-- Whether one of the header's entity tags is this one. One pass from left to right, which ends at the first byte that
-- is no list of entity tags: the work is linear in the header's length.
local function names(header, etag, weakly)
    if find(header, "^[ \t]*%*[ \t]*$") then
        return true
    end
    local at = 1
    for _ = 1, MOST_ELEMENTS do
        at = select(2, find(header, "^[ \t]*", at)) + 1
        local is_weak = sub(header, at, at + 1) == "W/"
        local first = is_weak and at + 2 or at
        local _, last = find(header, '^"[^"]*"', first)
        local behind = (last or at - 1) + 1
        local _, stop = find(header, "^[ \t]*", behind)
        local is_end = stop == #header
        if not is_end and sub(header, stop + 1, stop + 1) ~= "," then
            return false
        end
        if last and (weakly or not is_weak) and sub(header, first, last) == etag then
            return true
        end
        if is_end then
            return false
        end
        at = stop + 2
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
