--- A worker's memory of a bounded number of things, the least recently used of which goes when it is full.
-- A Lua table that is filled to its last slot, as one with a power of two of keys is, is built anew as a whole whenever
-- a key takes another's place: at 8,192 tokens that was 200 to 400 µs of CPU for each new one. A quarter of the slots
-- free, it happens once in thousands of times.

local lrucache = require("resty.lrucache")

local _M = {}

--- @param slots of the table, a power of two; three quarters of them are used
function _M.new(slots)
    return assert(lrucache.new(slots * 3 / 4))
end

return _M
