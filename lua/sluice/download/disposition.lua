--- Content-Disposition for any Unicode name (RFC 6266, RFC 8187).

local _M = {}

-- attr-char of RFC 8187 section 3.2.1; everything else is percent-encoded.
local NOT_ATTR_CHAR = "[^%w!#$&+%-.^_`|~]"

local function percent(char)
    return string.format("%%%02X", char:byte())
end

-- For clients that know no filename*: one "_" for each character that is not plain ASCII, and for those that break a
-- quoted string or are read as escapes by some browsers ('%') or as folders by some systems ('/').
local function fallback(name)
    return (name:gsub("[\192-\247][\128-\191]*", "_"):gsub("[^\32-\126]", "_"):gsub('["\\%%/]', "_"))
end

--- The header's value.
-- @param kind attachment or inline
-- @param name the file's name, UTF-8
function _M.header(kind, name)
    if kind ~= "inline" then
        kind = "attachment"
    end
    if name == "" then
        return kind
    end
    return kind .. '; filename="' .. fallback(name) .. "\"; filename*=UTF-8''" .. name:gsub(NOT_ATTR_CHAR, percent)
end

return _M
