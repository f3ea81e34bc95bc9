--- Writes failures to the error log: at most one line per second and message, with its count.
-- If a request logs a message, nginx adds the request line, and a link's request line is a secret. So messages are
-- collected here and written by a timer, which has no request.

local timer = require("sluice.platform.timer")

local _M = {}

local MAX_KINDS = 50
local counts, kinds = {}, 0

--- Notes a failure.
-- @param message what failed; it must not contain data from the client
function _M.note(message)
    local count = counts[message]
    if count then
        counts[message] = count + 1
    elseif kinds < MAX_KINDS then
        counts[message] = 1
        kinds = kinds + 1
    end
end

local function write()
    if kinds == 0 then
        return
    end
    local noted = counts
    counts, kinds = {}, 0
    for message, count in pairs(noted) do
        ngx.log(ngx.ERR, "sluice: ", message, count > 1 and " (" .. count .. " times)" or "")
    end
end

--- Starts this worker's timer.
function _M.start()
    timer.every(1, write, "the journal")
end

return _M
