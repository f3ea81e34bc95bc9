--- Where a download's bytes come from, and at which pace, once access.lua has decided that they may go.
-- It sets what nginx needs to know, and names the internal location that sends them; it ends no request.

local fallback = require("sluice.download.fallback")
local journal = require("sluice.platform.journal")
local local_file = require("sluice.storage.local_file")
local proxy = require("sluice.storage.proxy")
local shaper = require("sluice.limits.shaper")
local target = require("sluice.download.target")
local traffic = require("sluice.limits.traffic")

local ngx = ngx
local var = ngx.var
local get_method = ngx.req.get_method

local _M = {}

-- Lets nginx send a file of local storage. It is given the range that was decided on, and nothing more to decide.
local function send_file(uri, first, last)
    if var.http_range then
        ngx.req.set_header("Range", first and string.format("bytes=%d-%d", first, last))
    end
    ngx.req.set_uri(uri)
end

-- The replica to read: the found one, or another one if the object on local storage is missing or damaged.
-- @return a target; or nil and an error code
local function readable(found)
    while found.path do
        local problem = local_file.problem(found.path, found.size)
        if not problem then
            break
        end
        local other, code = fallback.find(found, problem)
        if not other then
            return nil, code or "STORAGE_UNAVAILABLE"
        end
        found = other
    end
    return found
end

-- Says for the log and the figures which storage gives the bytes.
local function name_storage(found)
    if found.storage ~= "local" then
        var.storage_kind = found.storage
        var.storage_label = found.name or ""
    end
end

-- Lets Lua send them at the pace of a tier's rate.
local function pace(found, first, last, account, rate)
    proxy.want(first, last, found.size)
    var.storage_type = ngx.header["Content-Type"]
    name_storage(found)
    var.account = account
    var.rate = rate
    ngx.req.discard_body()
    return nil, "/_paced"
end

--- Lets nginx send a blob's bytes from the storage that holds them.
-- @return an error code; or nil, and the location that sends them if this one does not
function _M.send(found, first, last, is_inner)
    if found.path then
        return send_file(found.uri, first, last)
    end
    name_storage(found)
    local code = proxy.aim_at_blob(found)
    if code then
        return code
    end
    ngx.req.discard_body()
    return nil, proxy.place(found, first, last, is_inner)
end

--- Sends the response of a download that has passed its conditions.
-- @param party the account whose limits apply (traffic.party)
-- @param found the file's target
-- @param first, last the range, or nil for the whole
-- @param reader who downloads by a link (readers.of); nil for an owner's own
-- @return an error code; or nil and the location that sends the bytes; or nil, nil and the status of an answer without
function _M.deliver(party, found, first, last, reader)
    -- Most objects are undamaged, so the cheap check comes first.
    if found.path and local_file.problem(found.path, found.size) then
        local code
        found, code = readable(found)
        if not found then
            return code
        end
    end
    local is_local = found.storage == "local"
    if not is_local and found.storage ~= "empty" and not proxy.RANGE_BEHAVIORS[found.storage] then
        return "STORAGE_UNSUPPORTED"
    end
    local length = first and last - first + 1 or found.size
    local is_head = get_method() == "HEAD"
    if length > 0 and not is_head then
        local code, rate = traffic.begin(party, length, reader)
        if code then
            return code
        elseif rate then
            return pace(found, first, last, party.account, rate)
        end
    end
    if is_local then
        return send_file(found.uri, first, last)
    end
    local header = ngx.header
    if first then
        header["Content-Range"] = string.format("bytes %d-%d/%d", first, last, found.size)
    else
        header["Accept-Ranges"] = "bytes"
    end
    if length == 0 or is_head then
        header["Content-Length"] = length
        return nil, nil, first and ngx.HTTP_PARTIAL_CONTENT or ngx.HTTP_OK
    end
    return _M.send(found, first, last)
end

--- Lets nginx send the response to the edge's inner request.
-- @return as send()
function _M.deliver_inner(found, first, last)
    local replica, code = readable(found)
    if not replica then
        return code
    end
    return _M.send(replica, first, last, true)
end

-- The range that was decided on, once nginx has tried a place.
local function decided_range()
    local text = var.storage_place == "/_storage/get" and var.storage_range or var.http_range
    local first, last = (text or ""):match("^bytes=(%d+)%-(%d+)$")
    return tonumber(first), tonumber(last)
end

--- Goes on with another replica, once nginx was left with an error and nothing was sent.
-- @return as deliver(), with the location always
function _M.resume(found)
    local code
    found, code = readable(found)
    if not found then
        return code
    end
    local header = ngx.header
    local first, last = decided_range()
    header["ETag"], header["Content-Type"] = found.etag, found.content_type
    header["Content-Range"], header["Accept-Ranges"] = nil, nil
    if found.path then
        var.storage_path, var.storage_label, var.storage_kind = "", "", ""
        var.storage_place = "/_storage/local"
        ngx.req.set_header("Range", first and string.format("bytes=%d-%d", first, last))
        return nil, "/_storage/local" .. found.uri
    end
    var.storage_range = ""
    if first then
        header["Content-Range"] = string.format("bytes %d-%d/%d", first, last, found.size)
    else
        header["Accept-Ranges"] = "bytes"
    end
    return _M.send(found, first, last, var.http_x_sluice_inner == shaper.secret())
end

--- Sends a paced download's bytes.
-- @return an error code if no byte was sent; or nil, and whether the body was cut
function _M.send_paced()
    local status, length = var.storage_wanted:match("^(%d+) (%d+)")
    length = tonumber(length)
    local socket, code, err = shaper.ask(var.subject, var.storage_range, length)
    if not socket then
        journal.note("could not send file " .. var.subject .. ": " .. err)
        return code or "STORAGE_UNAVAILABLE"
    end
    local header = ngx.header
    ngx.status = tonumber(status)
    header["Content-Type"] = var.storage_type
    header["Content-Length"] = length
    header["Content-Range"] = var.storage_wanted:match(" (bytes .*)$")
    header["Accept-Ranges"] = ngx.status == ngx.HTTP_OK and "bytes" or nil
    local sent
    sent, err = shaper.send(socket, length, var.account, tonumber(var.rate))
    traffic.note_booked(sent)
    if err then
        journal.note("a paced download of file " .. var.subject .. " was cut: " .. err)
        local found = target.find(var.subject)
        if found and found.name then
            target.report(var.subject, found.name, found.uri, "cut")
        end
    end
    return nil, sent < length
end

return _M
