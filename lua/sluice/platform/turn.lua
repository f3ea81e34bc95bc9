--- Work that one worker does for all: they take turns with a lock in a shared dict.

local journal = require("sluice.platform.journal")

local _M = {}

--- Runs a function, unless another worker has run it in this interval or is running it.
-- @param dict that holds the key "lock"
-- @param most seconds for which a worker that is killed meanwhile blocks the others
-- @param interval of the workers' timers, in seconds
-- @param work returns true, or nil and what failed
-- @param failure prefix of the message in the error log
-- @return whether it was this worker's turn
function _M.take(dict, most, interval, work, failure)
    if not dict:add("lock", true, most) then
        return false
    end
    local ok, done, err = pcall(work)
    if not ok or not done then
        journal.note(failure .. ": " .. tostring(ok and err or done))
    end
    -- Kept for most of the interval, so that the other workers' timers find it taken.
    dict:expire("lock", interval * 0.8)
    return true
end

return _M
