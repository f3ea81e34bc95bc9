--- Counts what requests hold while they last: open downloads, reserved bytes. One sum per key, across all workers.
-- A request takes an amount when it begins and gives it back in the log phase, so no regular end leaks. A killed worker
-- gives nothing back. So once per second one worker checks whether every registered process is alive. If one is dead, a
-- new generation of sums starts at zero, and each worker adds the amounts it holds. The sums are right after 1 to 2 s.

local ffi = require("ffi")
local journal = require("sluice.platform.journal")
local timer = require("sluice.platform.timer")

ffi.cdef [[ int kill(int pid, int signal); ]]

local _M = {}

local ESRCH = 3
local INTERVAL = 1

local sums = ngx.shared.holds
local feed = ngx.shared.feed

local mine = {}
local generation, prefix = 0, ""

-- Until a worker has died, keys have no prefix, which saves a string per call.
local function current(key)
    return generation == 0 and key or prefix .. key
end

--- Adds an amount.
-- @return the sum of all workers, including this amount; only the amount if the shared dict fails
function _M.take(key, amount)
    mine[key] = (mine[key] or 0) + amount
    local sum, err = sums:incr(current(key), amount, 0)
    if not sum then
        journal.note("could not keep what is held: " .. tostring(err))
        return amount
    end
    return sum
end

--- Gives an amount back.
function _M.give(key, amount)
    local left = (mine[key] or 0) - amount
    mine[key] = left > 0 and left or nil
    local sum = sums:incr(current(key), -amount)
    -- If the entry was evicted, this incr may have started it below zero.
    if sum and sum < 0 then
        sums:delete(current(key))
    end
end

local function lives(pid)
    return ffi.C.kill(pid, 0) == 0 or ffi.errno() ~= ESRCH
end

-- Starts a new generation for each worker that was killed.
local function count_workers()
    for _, key in ipairs(feed:get_keys(0)) do
        local pid = key:match("^worker:(%d+)$")
        if pid and not lives(tonumber(pid)) then
            feed:delete(key)
            feed:incr("holds_generation", 1, 0)
        end
    end
end

local function catch_up()
    local newest = feed:get("holds_generation") or 0
    if newest ~= generation then
        generation, prefix = newest, newest .. ":"
        for key, amount in pairs(mine) do
            sums:incr(current(key), amount, 0)
        end
    end
end

local function check(premature)
    if premature then
        return
    end
    if feed:add("census", true, INTERVAL * 0.8) then
        count_workers()
    end
    catch_up()
end

--- Registers this worker and starts its timer.
function _M.start()
    feed:set("worker:" .. ngx.worker.pid(), true)
    catch_up()
    timer.every(INTERVAL, check, "the census")
end

--- Ends this worker: gives back everything that it still holds.
function _M.stop()
    feed:delete("worker:" .. ngx.worker.pid())
    for key, amount in pairs(mine) do
        sums:incr(current(key), -amount)
    end
    mine = {}
end

return _M
