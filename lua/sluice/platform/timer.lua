--- Periodic work of a worker.

local _M = {}

local function report(ok, err, what)
    if not ok then
        ngx.log(ngx.ERR, "sluice: could not start ", what, ": ", err)
    end
end

--- Runs a function periodically, first after one interval.
-- @param run called with true if the worker is ending, otherwise false
-- @param what names it in the error log
function _M.every(seconds, run, what)
    local ok, err = ngx.timer.every(seconds, run)
    report(ok, err, what)
end

--- Runs a function periodically, first immediately.
function _M.at_once_and_every(seconds, run, what)
    local ok, err = ngx.timer.at(0, run)
    report(ok, err, what)
    _M.every(seconds, run, what)
end

return _M
