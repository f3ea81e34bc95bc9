--- Another replica of a file, if the one that the API named cannot be read. Nothing was sent to the client yet.
-- The API is asked for it, and learns in the same call which one failed, and why.

local journal = require("sluice.platform.journal")
local metrics = require("sluice.metrics")
local target = require("sluice.download.target")

local ngx = ngx
local var = ngx.var

local _M = {}

-- Replicas that one request tries.
local MOST_TRIES = 3

--- Finds another replica.
-- @param failed name, uri and, if known, etag of the one that could not be read
-- @param reason missing, length, error or timeout
-- @return its target; or nil, and an error code if the API gave one
function _M.find(failed, reason)
    local file, tried = var.subject, var.storage_tried
    journal.note("storage " .. failed.name .. " could not give file " .. file .. " (" .. reason .. ")")
    tried = tried and tried ~= "" and tried .. "," .. failed.name or failed.name
    var.storage_tried = tried
    if select(2, tried:gsub(",", "")) + 1 >= MOST_TRIES then
        target.report(file, failed.name, failed.uri, reason)
        return nil
    end
    local other, code = target.replace(file, tried, failed.uri, reason)
    if other and failed.etag and other.etag ~= failed.etag then
        -- The file has other content by now, and the request was judged by the old one's.
        return nil
    elseif other then
        metrics.add("fallbacks", failed.name, reason)
    end
    return other, code
end

return _M
