--- Range (RFC 9110 section 14.2). One range at most: many ranges are a known attack (CVE-2011-3192), and the whole file
-- is always a correct answer. The edge decides for every storage, because storages differ: RGW sends the first of
-- several ranges, and OSS sends the whole object if a range reaches past the end.

local _M = {}

-- Bytes of the longest header that is looked at: one range of two 19-digit numbers has 45.
local MAX_LENGTH = 64

--- The bytes that a header asks for.
-- @param header Range's value
-- @param size of the content, more than 0
-- @return first and last; nil if the whole is to be sent; false if the content has no byte of the range
function _M.select(header, size)
    if #header > MAX_LENGTH then
        return nil
    end
    local from, to = header:lower():match("^bytes=%s*(%d*)%-(%d*)%s*$")
    from, to = tonumber(from), tonumber(to)
    if not from and not to then
        return nil
    elseif not from then
        -- A suffix range: the last `to` bytes.
        if to == 0 then
            return false
        end
        return math.max(0, size - to), size - 1
    elseif to and to < from then
        return nil
    elseif from >= size then
        return false
    end
    return from, math.min(to or size, size - 1)
end

return _M
