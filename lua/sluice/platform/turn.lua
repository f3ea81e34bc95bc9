--- What one worker does for all of them: they take turns by a lock in a shared dict.

local journal = require("sluice.platform.journal")

local _M = {}

--- Does a piece of work unless another worker has done it in this interval, or is about to.
-- @param dict where the key "lock" is
-- @param most seconds that a worker which dies meanwhile blocks the others for
-- @param interval in which the workers' timers run
-- @param work returns true, or nil and what failed
-- @param failure what the journal says before that
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
