--- Limits how often a part is sent. Each edge counts alone, in a shared dict.

local journal = require("sluice.platform.journal")

local _M = {}

local MOST_TRIES = 5
local WINDOW_SECONDS = 3600

local tries = ngx.shared.part_tries

local function key_of(upload, part)
    return upload .. ":" .. part
end

--- Counts a PUT to a proxied storage: on RGW 16, every repeated part takes up space permanently.
-- @return nil if it may continue, or the seconds until it may
function _M.count_try(upload, part)
    local key = key_of(upload, part)
    local count, err = tries:incr(key, 1, 0, WINDOW_SECONDS)
    if not count then
        -- This protects space, not content: if the dict fails, uploads continue.
        journal.note("could not count a part's tries: " .. err)
        return nil
    end
    if count > MOST_TRIES then
        return math.ceil(math.max(1, tries:ttl(key) or WINDOW_SECONDS))
    end
    return nil
end

--- Uncounts a try, if the storage has stored nothing.
function _M.forgive_try(upload, part)
    tries:incr(key_of(upload, part), -1)
end

return _M
