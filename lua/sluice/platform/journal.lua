--- What went wrong, in the error log: one line a second for the same thing, with its count, and no request line.
-- nginx quotes the request in each message that a request writes, and a link's request line is a secret. So messages
-- are noted here and written by a timer, which has no request.

local timer = require("sluice.platform.timer")

local _M = {}

local MAX_KINDS = 50
local counts, kinds = {}, 0

--- Notes a failure.
-- @param message what failed, with nothing of the client's in it
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
