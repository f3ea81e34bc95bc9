--- API calls of one account under way at the same time.
-- The API has a few threads for all accounts. An account holds some of them at once (the tier's `calls`); a further
-- call waits here, which costs a connection and no thread, and is refused when it has waited for long or many wait
-- already.
-- Calls that need no token have a few places together, and of those who wait for them each network a few: a flood of
-- sign-ins delays sign-ins, not accounts.

local holds = require("sluice.limits.holds")
local metrics = require("sluice.metrics")

local ngx = ngx
local var = ngx.var

local _M = {}

-- Calls without a token under way, and how many of one network may wait.
local OF_STRANGERS, WAITING_OF_NETWORK = 3, 8
-- So many times the calls at once may wait, for so many seconds.
local WAITING_TIMES, WAIT_SECONDS = 16, 10
-- How often who waits looks again: a little later each time, so that those who came first look more often.
local FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05

local function take(key, most)
    if holds.take(key, 1) <= most then
        return true
    end
    holds.give(key, 1)
    return false
end

-- Waits for a place.
local function wait(key, most)
    local deadline, pause = ngx.now() + WAIT_SECONDS, FIRST_PAUSE
    while ngx.now() < deadline do
        ngx.sleep(pause * (0.5 + math.random()))
        if take(key, most) then
            return true
        end
        pause = math.min(pause * 1.5, LONGEST_PAUSE)
    end
    return false
end

-- Begins a call as soon as there is a place.
local function begin(whose, most, may_wait)
    local key = "c:" .. whose
    local has_place = take(key, most)
    if not has_place and may_wait() then
        local waiting = "w:" .. whose
        if take(waiting, most * WAITING_TIMES) then
            has_place = wait(key, most)
            holds.give(waiting, 1)
        end
    end
    metrics.add("limits", "calls", has_place and "passed" or "refused")
    if not has_place then
        return "CALLS_LIMITED"
    end
    var.calling = key
    return nil
end

local function always()
    return true
end

--- Begins a call of an account.
-- @param account kind:id
-- @param most calls at once; nil where there is no limit
-- @return nil, or an error code
function _M.begin(account, most)
    return most and begin(account, most, always) or nil
end

--- Begins a call that needs no token.
-- @param network the client's
-- @return nil, or an error code
function _M.begin_stranger(network)
    local of_network = "w:network:" .. network
    local waits = false
    local code = begin("strangers", OF_STRANGERS, function()
        waits = take(of_network, WAITING_OF_NETWORK)
        return waits
    end)
    if waits then
        holds.give(of_network, 1)
    end
    return code
end

--- The API has answered, or the request is over.
function _M.finish()
    local key = var.calling
    if key and key ~= "" then
        var.calling = ""
        holds.give(key, 1)
    end
end

return _M
