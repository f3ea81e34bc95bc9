--- If-None-Match (RFC 9110 section 13.1.2).

local _M = {}

--- Whether one of the header's entity tags is this one, compared weakly.
-- @param header If-None-Match's value
-- @param etag a strong entity tag with its quotes
function _M.matches(header, etag)
    if header:match("^%s*%*%s*$") then
        return true
    end
    -- A tag of ours holds hex digits alone, so no comma or quote of a foreign tag can look like one.
    local first, last = header:find(etag, 1, true)
    while first do
        local before = header:sub(1, first - 1):gsub("W/$", "")
        if before:match("^%s*$") or before:match(",%s*$") then
            if header:match("^%s*,", last + 1) or header:match("^%s*$", last + 1) then
                return true
            end
        end
        first, last = header:find(etag, last + 1, true)
    end
    return false
end

return _M
