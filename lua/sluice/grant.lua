--- A share's download: what one token of the purpose "share" is good for.
-- It is one download, which the API has counted when it signed the token: begun before `start`, by one address, and
-- of at most twice its size over all its ranges and resumptions. Kept by each edge for itself. Once `start` is over,
-- an edge that does not know of the download (it was begun at another, or this one was restarted) lets nobody begin
-- it again.

local journal = require("sluice.journal")

local _M = {}

local TIMES_SIZE = 2

local grants = ngx.shared.grants

-- The address that the download belongs to from now on; nil, err where that cannot be kept.
local function bind(claims, address, now)
    local ok, err = grants:safe_add("a:" .. claims.jti, address, claims.exp - now)
    if ok then
        return address
    elseif err == "exists" then
        return grants:get("a:" .. claims.jti)
    end
    return nil, err
end

--- Whether an address may use a token at all.
-- @return nil, or an error code
function _M.check(claims, address)
    local owner = grants:get("a:" .. claims.jti)
    if owner then
        return owner ~= address and "LINK_BOUND" or nil
    end
    return ngx.time() >= claims.start and "LINK_EXPIRED" or nil
end

--- Begins a response of some bytes: binds the download to the address, and reserves them.
-- @return nil, or an error code
function _M.begin(claims, address, length)
    local now = ngx.time()
    local owner, err = bind(claims, address, now)
    if not owner then
        -- Who began it could not be told from anybody else.
        journal.note("could not keep who began a share's download: " .. tostring(err))
        return "EDGE_BUSY"
    elseif owner ~= address then
        return "LINK_BOUND"
    end
    local key = "b:" .. claims.jti
    local total
    total, err = grants:incr(key, length, 0, claims.exp - now)
    if not total then
        journal.note("could not count a share's download: " .. tostring(err))
        return "EDGE_BUSY"
    elseif total > TIMES_SIZE * claims.size then
        grants:incr(key, -length)
        return "LINK_EXHAUSTED"
    end
    return nil
end

--- The end of a response: what was not sent may be asked for again.
function _M.settle(jti, length, sent)
    grants:incr("b:" .. jti, sent - length)
end

return _M
