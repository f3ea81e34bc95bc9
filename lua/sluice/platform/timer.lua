--- What a worker does again and again, for as long as it lives.

local _M = {}

local function report(ok, err, what)
    if not ok then
        ngx.log(ngx.ERR, "sluice: could not start ", what, ": ", err)
    end
end

--- Runs something every so many seconds; the first time after as many.
-- @param run is given whether the worker ends, and it is run for that
-- @param what names it in the error log
function _M.every(seconds, run, what)
    local ok, err = ngx.timer.every(seconds, run)
    report(ok, err, what)
end

--- The same, with a first time at once.
function _M.at_once_and_every(seconds, run, what)
    local ok, err = ngx.timer.at(0, run)
    report(ok, err, what)
    _M.every(seconds, run, what)
end

return _M
