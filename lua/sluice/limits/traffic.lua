--- Applies limits and quotas to requests, and books their traffic. The functions are in the order in which a request
-- calls them. All counts belong to the ids in a token's claims, or to the owner of the file of a link. So a user's
-- sessions and links share one account, and a request with an invalid token uses no account's limits.
--
-- $held keeps the amounts that a response holds until its end, because nginx variables survive internal redirects: an
-- account, "kind:id", for an open download; "=<bytes that are to come to local storage> account" for a part; or, for an
-- open download with more to settle, "+<reserved bytes or -1> <bytes that were booked on the way> account".

local calls = require("sluice.limits.calls")
local gcra = require("sluice.limits.gcra")
local holds = require("sluice.limits.holds")
local metrics = require("sluice.metrics")
local readers = require("sluice.limits.readers")
local quota = require("sluice.limits.quota")
local tier = require("sluice.limits.tier")
local usage = require("sluice.limits.usage")

local ngx = ngx
local var = ngx.var

local _M = {}

local byte = string.byte
local PART, MORE = byte("="), byte("+")

-- Key of the bytes of all bodies that are arriving for local storage.
local ARRIVING = "arriving"
-- Prefix of the number of arriving bodies per part, by upload and part number.
local BODIES, MOST_BODIES = "bodies:", 4

local PREFIXES = { api = "a:", part = "p:", download = "d:" }

--- Whom limits and accounts hold for; made once for each verified token, and for each file that is sent.
-- @param kind user; or anonymous: strangers' downloads by a user's links, where SLUICE_LINK_TIER keeps them apart
-- @param id the user's
-- @param name the tier's
function _M.party(kind, id, name)
    local account = kind .. ":" .. id
    local clocks = {}
    for counted, prefix in pairs(PREFIXES) do
        clocks[counted] = prefix .. account
    end
    return { account = account, tier = name, clocks = clocks }
end

-- Only refused requests and API calls get these headers; for other requests they would cost too much.
local function tell(limit, ahead)
    local header = ngx.header
    header["RateLimit-Limit"], header["RateLimit-Remaining"], header["RateLimit-Reset"] = gcra.quota(limit, ahead)
end

local function refuse(limit, wait, ahead, code)
    tell(limit, ahead)
    ngx.header["Retry-After"] = math.max(1, math.ceil(wait))
    return code
end

--- Counts a request.
-- @param kind api, part or download
-- @param party whose limit holds
-- @param reader who downloads by a link (readers.of); nil for all others
-- @return nil, or an error code
function _M.admit(kind, party, reader)
    local limit = tier.of(party.tier)[kind]
    if not limit then
        return nil
    end
    -- Readers have a clock per link and network, so that they do not use the owner's limit.
    local wait, ahead = gcra.take(reader and reader.clock or party.clocks[kind], limit)
    metrics.add("limits", kind, wait and "refused" or "passed")
    if wait then
        return refuse(limit, wait, ahead, "REQUESTS_LIMITED")
    elseif kind == "api" then
        tell(limit, ahead)
    end
    return nil
end

--- Counts a call without a token, by IPv4 address or IPv6 network (one machine has all addresses of its network).
-- @param kind signup, signin or refresh
-- @return nil, or an error code
function _M.admit_stranger(kind, code)
    local limit = kind and tier.public(kind)
    if not limit then
        return nil
    end
    local wait, ahead = gcra.take(kind .. ":" .. var.client_network, limit)
    metrics.add("limits", kind, wait and "refused" or "passed")
    return wait and refuse(limit, wait, ahead, code) or nil
end

-- Reserves a response's length in the quota.
local function reserve(account, allowed, length)
    local code, wait = quota.reserve(account, allowed, length)
    metrics.add("limits", "quota", code and "refused" or "passed")
    if code then
        ngx.header["Retry-After"] = wait
        return code
    end
    var.held = string.format("+%d 0 %s", length, account)
    return nil
end

-- Counts an open download.
local function connect(account, allowed, reader)
    if reader then
        local code, wait = readers.begin(reader, allowed)
        if code then
            metrics.add("limits", wait and "quota" or "connections", "refused")
            ngx.header["Retry-After"] = wait
        end
        return code
    end
    local open = holds.take(account, 1)
    if allowed.connections and open > allowed.connections then
        holds.give(account, 1)
        metrics.add("limits", "connections", "refused")
        return "CONNECTIONS_LIMITED"
    end
    return nil
end

local function disconnect(account, sent, has_quota)
    if not readers.finish(sent, has_quota) then
        holds.give(account, 1)
    end
end

--- Begins a response with a blob's bytes.
-- @param length number of bytes, more than 0
-- @param reader as for admit()
-- @return nil, or an error code; and the tier's rate in bytes per second, if it has one
function _M.begin(party, length, reader)
    local allowed = tier.of(party.tier)
    local account = party.account
    local code = connect(account, allowed, reader)
    if code then
        return code
    end
    var.held = account
    if allowed.quota then
        code = reserve(account, allowed, length)
        if code then
            -- The response has not begun, so the log phase must not settle it.
            disconnect(account, 0, false)
            var.held = ""
            return code
        end
    end
    return nil, allowed.rate
end

--- Begins to receive a part.
-- Clients must not be able to fill the disk with unfinished bodies for the URL of one part. nginx's limit_conn would
-- count the requests of a killed worker permanently.
-- @return an error code; or nil, and the bytes of all bodies on their way to local storage, if this one goes there
function _M.begin_part(part)
    if part.to then
        var.held = "=0 - " .. part.party.account
        return nil, 0
    end
    local place = part.upload .. "/" .. part.part
    if holds.take(BODIES .. place, 1) > MOST_BODIES then
        holds.give(BODIES .. place, 1)
        return "PART_BUSY"
    end
    var.held = string.format("=%d %s %s", part.size, place, part.party.account)
    return nil, holds.take(ARRIVING, part.size)
end

--- Records bytes that usage has already counted.
function _M.note_booked(bytes)
    local held = var.held
    local reserved, account = held:match("^%+(%S+) %S+ (%S+)$")
    var.held = string.format("+%d %d %s", reserved or -1, bytes, account or held)
end

local function settle_rare(held, sent)
    local reserved, booked, account = held:match("^%+(%S+) (%S+) (%S+)$")
    reserved = tonumber(reserved)
    if reserved >= 0 then
        quota.settle(account, reserved, sent)
    end
    return account, sent - tonumber(booked), reserved >= 0
end

--- Log phase: books the bytes of the request, and releases everything that it holds.
function _M.finish()
    calls.finish()
    local account = var.held
    if not account or account == "" then
        return
    end
    local first = byte(account)
    if first == PART then
        local size, place, sender = account:match("^=(%d+) (%S+) (%S+)$")
        if place ~= "-" then
            holds.give(ARRIVING, tonumber(size))
            holds.give(BODIES .. place, 1)
        end
        local received = ngx.status < 300 and var.content_length or var.request_length
        usage.add(sender, 0, tonumber(received) or 0)
        return
    end
    -- The body of an error response is not counted as traffic.
    local sent = ngx.status < 400 and tonumber(var.body_bytes_sent) or 0
    local moved, reserved = sent, nil
    if first == MORE then
        account, sent, reserved = settle_rare(account, sent)
    end
    disconnect(account, moved, reserved)
    if sent > 0 then
        usage.add(account, sent, 0)
    end
end

return _M
