--- How often something may be done. Counted in a shared dict: by each edge for itself, and forgotten with it.

local journal = require("sluice.platform.journal")

local _M = {}

local MOST_TRIES = 5
local WINDOW_SECONDS = 3600

local tries = ngx.shared.part_tries

local function key_of(upload, part)
    return upload .. ":" .. part
end

--- Counts a PUT that goes on to a proxied storage: a part that is sent again and again fills RGW 16 for good.
-- @return nil where it may go on, or the seconds until it may
function _M.count_try(upload, part)
    local key = key_of(upload, part)
    local count, err = tries:incr(key, 1, 0, WINDOW_SECONDS)
    if not count then
        -- It protects space, not content: when it is broken, uploads go on.
        journal.note("could not count a part's tries: " .. err)
        return nil
    end
    if count > MOST_TRIES then
        return math.ceil(math.max(1, tries:ttl(key) or WINDOW_SECONDS))
    end
    return nil
end

--- Takes a try back, of which the storage has kept nothing.
function _M.forgive_try(upload, part)
    tries:incr(key_of(upload, part), -1)
end

return _M
