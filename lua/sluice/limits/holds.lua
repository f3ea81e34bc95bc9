--- What is held for as long as something lasts: open downloads, reserved bytes. One sum per key over all workers.
-- Held when it begins and given back in the log phase, so no orderly end leaks. A worker that is killed gives nothing
-- back: once a second one worker looks whether every registered process lives. Where one does not, a new generation of
-- sums begins at nothing, and each worker adds what it holds itself; within a second or two all is as it should be.

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

-- Before any worker has died, keys are what they are: no string is made.
local function current(key)
    return generation == 0 and key or prefix .. key
end

--- Holds an amount.
-- @return the sum over all workers, this amount included; where it cannot be kept, the amount alone
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
    -- What was evicted is begun anew by others, and not by whom it is given back.
    if sum and sum < 0 then
        sums:delete(current(key))
    end
end

local function lives(pid)
    return ffi.C.kill(pid, 0) == 0 or ffi.errno() ~= ESRCH
end

-- Looks for workers that have died in the middle of something.
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

--- The end of this worker: what it still holds will not be given back by anybody else.
function _M.stop()
    feed:delete("worker:" .. ngx.worker.pid())
    for key, amount in pairs(mine) do
        sums:incr(current(key), -amount)
    end
    mine = {}
end

return _M
