--- Limits the concurrent API calls of one account.
-- The API has a few threads for all accounts. An account may use some of them at the same time (the tier's `calls`).
-- A further call waits here, which costs a connection but no thread. It is refused if it waits too long, or if too many
-- calls are waiting.
-- All calls without a token share a few places, and only a few calls per network may wait for them. So a flood of
-- sign-ins delays other sign-ins, but no signed-in account.

local holds = require("sluice.limits.holds")
local metrics = require("sluice.metrics")

local ngx = ngx
local var = ngx.var

local _M = {}

-- Concurrent calls without a token, and calls of one network that may wait for a place.
local STRANGERS_CALLS, WAITING_PER_NETWORK = 3, 8
-- Waiting calls per concurrent call of the limit, and the longest wait in seconds.
local WAITING_TIMES, WAIT_SECONDS = 16, 10
-- Pauses between two tries of a waiting call, in seconds: each is longer than the one before.
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

-- Takes a place for a call; waits for one if necessary.
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
-- @param most concurrent calls; nil if there is no limit
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
    local code = begin("strangers", STRANGERS_CALLS, function()
        waits = take(of_network, WAITING_PER_NETWORK)
        return waits
    end)
    if waits then
        holds.give(of_network, 1)
    end
    return code
end

--- Ends a call: the API has responded, or the request has ended.
function _M.finish()
    local key = var.calling
    if key and key ~= "" then
        var.calling = ""
        holds.give(key, 1)
    end
end

return _M
