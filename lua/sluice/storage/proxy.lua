--- Blobs and parts of storages that nginx proxies: the request's destination, and which of the response's headers pass.
-- The edge only requests URLs that the API signed, in a target or in a part's token. It sends the storage that URL and
-- a fixed list of headers, and passes the bytes back if they are the requested ones. The constant part of the
-- configuration is in nginx/snippets/storage*.conf; decisions reach it in $storage_… variables, because these survive
-- an internal redirect.

local balancer = require("ngx.balancer")
local heat = require("sluice.download.heat")
local journal = require("sluice.platform.journal")
local resolver = require("sluice.storage.resolver")
local shaper = require("sluice.limits.shaper")
local target = require("sluice.download.target")

local ngx = ngx
local var = ngx.var

local _M = {}

-- The kinds of storages whose blobs are read through the proxy, and the header value that a Range needs besides:
-- without it OSS sends the whole object if it does not accept a range. The signature for OSS covers that header.
_M.RANGE_BEHAVIORS = { s3 = "", oss = "standard" }

-- Judged already (conditional.lua).
local CONDITIONS = { "If-Match", "If-None-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since" }
local PRECONDITION_FAILED = 412
-- Seconds that a storage has for its first byte, and between two, while another replica could be read.
local PATIENCE_SECONDS = 10
local PORTS = { http = "80", https = "443" }
-- Response headers that a client may see. For a GET the edge sets all of them except the length.
local SHOWN = {
    ["content-type"] = true, ["content-length"] = true, ["content-range"] = true, ["content-disposition"] = true,
    ["accept-ranges"] = true, ["etag"] = true, ["connection"] = true,
}
local PART_CODES = {
    [400] = "PART_HASH_MISMATCH", [404] = "UPLOAD_NOT_OPEN", [504] = "STORAGE_TIMEOUT",
}

-- Takes a URL of the API's apart.
local function split(url)
    local scheme, authority, path = url:match("^(https?)://([%w.:%[%]-]+)(/[\33-\126]*)$")
    if not scheme or path:find("#", 1, true) then
        return nil
    end
    local host, port = authority:match("^(%[[%x:.]+%]):?(%d*)$")
    if not host then
        host, port = authority:match("^([%w.-]+):?(%d*)$")
    end
    if not host then
        return nil
    end
    return scheme, authority, path, host, port ~= "" and port or PORTS[scheme]
end

--- Points this request at a URL.
-- @return nil, or an error code
function _M.aim(url)
    local scheme, authority, path, host, port = split(url)
    if not scheme then
        return "STORAGE_UNSUPPORTED"
    end
    local addresses, err = resolver.addresses(host)
    if not addresses then
        journal.note("could not find the address of " .. host .. ": " .. err)
        return "STORAGE_UNAVAILABLE"
    end
    local peers = {}
    for i, address in ipairs(addresses) do
        peers[i] = address .. ":" .. port
    end
    var.storage_scheme = scheme
    -- As it was signed, with its port if it has one.
    var.storage_host = authority
    var.storage_name = host
    var.storage_path = path
    var.storage_peers = table.concat(peers, " ")
    return nil
end

--- Makes the prepared request a PUT of a whole object, with the condition that its signature covers: an object that
-- exists already is not overwritten.
function _M.keep_what_is_there()
    var.storage_none_match = "*"
end

--- Whether the PUT of a whole object found it there. Keys are never used twice and the signature binds the body's hash:
-- these very bytes are stored.
function _M.is_stored_already()
    return var.storage_none_match == "*" and _M.answered() == PRECONDITION_FAILED
end

--- Points this request at a blob.
-- @param found its target
-- @return nil, or an error code
function _M.aim_at_blob(found)
    var.storage_range_behavior = _M.RANGE_BEHAVIORS[found.storage]
    var.storage_uri = found.uri
    var.storage_others = found.others and "1" or ""
    if found.cached then
        -- Without its query: a signature says nothing about the bytes.
        var.storage_object = found.uri:match("^[^?]*")
    end
    return _M.aim(found.uri)
end

-- nginx gives what it finds on its disk the range that was decided on.
local function ask_cache(found, first, last)
    local header = ngx.header
    var.storage_wanted = tostring(found.size)
    -- It would be compared with the pieces' own.
    var.storage_etag = header["ETag"]
    header["ETag"], header["Content-Range"], header["Accept-Ranges"] = nil, nil, nil
    for _, name in ipairs(CONDITIONS) do
        ngx.req.clear_header(name)
    end
    if first then
        ngx.req.set_header("Range", string.format("bytes=%d-%d", first, last))
    else
        ngx.req.clear_header("Range")
    end
end

--- Prepares the way to a blob that was aimed at.
-- @param found its target
-- @param first, last the range, or nil for the whole
-- @param is_inner whether it is the edge that asks itself
-- @return the location that asks for it
function _M.place(found, first, last, is_inner)
    var.storage_type = ngx.header["Content-Type"]
    if found.cached then
        ask_cache(found, first, last)
        var.storage_place = "/_storage/cached"
        if not is_inner and heat.wants_copy(var.storage_object, first) then
            var.inner_secret = shaper.secret()
            return "/_storage/whole"
        end
    else
        _M.want(first, last, found.size)
        var.storage_place = "/_storage/get"
    end
    return var.storage_place
end

--- Says which bytes of a blob are wanted, and how the storage has to answer.
-- @param first and last byte, or nil for the whole
function _M.want(first, last, size)
    if first then
        var.storage_range = string.format("bytes=%d-%d", first, last)
        var.storage_wanted = string.format("206 %d bytes %d-%d/%d", last - first + 1, first, last, size)
    else
        var.storage_wanted = string.format("200 %d", size)
    end
end

--- The address of this try, for the upstream's balancer: the next one each time.
function _M.balance()
    local tried = ngx.ctx.tried or 0
    ngx.ctx.tried = tried + 1
    if var.storage_others == "1" then
        balancer.set_timeouts(nil, nil, PATIENCE_SECONDS)
    end
    local at = 0
    for address, port in var.storage_peers:gmatch("(%S+):(%d+)") do
        if at == tried then
            if tried == 0 then
                balancer.set_more_tries(select(2, var.storage_peers:gsub(" ", "")))
            end
            return assert(balancer.set_current_peer(address, tonumber(port)))
        end
        at = at + 1
    end
    -- nginx tries once more if the storage was just closing a kept connection: use the first address again.
    local address, port = var.storage_peers:match("^(%S+):(%d+)")
    return assert(balancer.set_current_peer(address, tonumber(port)))
end

local function hide_headers()
    for name in pairs(ngx.resp.get_headers(0, true)) do
        if not SHOWN[name:lower()] then
            ngx.header[name] = nil
        end
    end
end

-- Ends a request whose response from the storage is wrong. /_error then runs inside the filter, and nginx closes the
-- connection after it: there is no time to ask the API. So the client must repeat this request, and the next one reads
-- another replica.
-- @param is_length whether the storage has the object, with another length
local function break_off(is_length)
    if var.storage_place ~= "" then
        target.report(var.subject, var.storage_label, var.storage_uri, is_length and "length" or "error")
    end
    var.storage_final = "1"
    return ngx.exit(ngx.HTTP_BAD_GATEWAY)
end

--- The header filter of a blob. A response other than exactly the wanted bytes is the storage's failure.
function _M.filter_get()
    hide_headers()
    -- nginx drops the type if it sends an error, and a renewed target may follow after an error.
    ngx.header["Content-Type"] = var.storage_type
    local got = ngx.status .. " " .. (var.upstream_http_content_length or "")
    if ngx.status == ngx.HTTP_PARTIAL_CONTENT then
        got = got .. " " .. (var.upstream_http_content_range or "")
    end
    if got ~= var.storage_wanted then
        return break_off(got:sub(1, 3) == var.storage_wanted:sub(1, 3))
    end
end

-- Whether a storage's answer is as long as the range that it names; what the edge's disk has, was.
local function has_length()
    if var.upstream_cache_status == "HIT" then
        return true
    end
    local first, last = (var.upstream_http_content_range or ""):match("^bytes (%d+)%-(%d+)/")
    return first and tonumber(var.upstream_http_content_length) == last - first + 1
end

-- Counts the pieces that an answer finds one after another from the blob's first on, up to its last.
local function count_hit()
    local first, last, size = (var.upstream_http_content_range or ""):match("^bytes (%d+)%-(%d+)/(%d+)$")
    local hits = first == "0" and 0 or tonumber(var.storage_hits)
    if hits and var.upstream_cache_status == "HIT" then
        var.storage_hits = hits + 1
        if last + 1 == tonumber(size) then
            heat.note_pieces(var.storage_object, hits + 1, tonumber(size))
        end
    else
        var.storage_hits = ""
    end
end

--- The header filter of a blob that is put together from pieces; of each piece, too, whose bounds nginx has compared.
function _M.filter_cached()
    if ngx.is_subrequest and (var.storage_piece ~= "whole" or not has_length()) then
        -- The piece before this one was cut, and nginx would put this one in its place; or this one is none.
        return ngx.exit(ngx.ERROR)
    end
    count_hit()
    var.storage_piece = ngx.is_subrequest and "later" or "first"
    if ngx.is_subrequest then
        return
    end
    local total = (var.upstream_http_content_range or ""):match("/(%d+)$")
    hide_headers()
    ngx.header["Content-Type"] = var.storage_type
    if ngx.status ~= ngx.HTTP_OK or total ~= var.storage_wanted or not has_length() then
        return break_off(total and total ~= var.storage_wanted)
    end
    ngx.header["ETag"] = var.storage_etag
end

--- The body filter of a blob in pieces. It sees the end of each piece; a piece that the storage cut short has no end.
function _M.filter_cached_body()
    if not ngx.arg[2] then
        return
    end
    if not ngx.is_subrequest and var.storage_piece == "later" then
        -- The whole answer ends after an incomplete piece. Without the error nginx would keep the connection open, and
        -- the client would wait.
        return ngx.ERROR
    end
    var.storage_piece = "whole"
end

--- The header filter of a blob that is sent from a copy in one file, or leaves one behind.
function _M.filter_whole()
    local size = var.upstream_http_content_length
    hide_headers()
    ngx.header["Content-Type"] = var.storage_type
    if ngx.status ~= ngx.HTTP_OK or size ~= var.storage_wanted then
        return break_off()
    end
    heat.note_copy(var.storage_object, var.upstream_cache_status == "HIT")
    ngx.header["ETag"] = var.storage_etag
end

--- The header filter of a part: stored, with an ETag, or not.
function _M.filter_put()
    hide_headers()
    if ngx.status ~= ngx.HTTP_OK then
        return break_off()
    end
end

--- Returns how the storage ended this request: the storage's status, or nginx' status if the storage sent none.
-- @return the status; nil if it was not the storage's fault
function _M.answered()
    return tonumber((var.upstream_status or ""):match("(%d+)%s*$"))
end

--- The error code for a storage's answer to a GET.
function _M.code_of_get(answered)
    return answered == 504 and "STORAGE_TIMEOUT" or "STORAGE_UNAVAILABLE"
end

--- The error code for a storage's answer to a part.
-- @return the code, and whether the storage is known to have kept nothing
function _M.code_of_put(answered)
    local connected = (var.upstream_connect_time or ""):find("%d")
    if answered == 404 and var.storage_none_match == "*" then
        -- No upload is missing then, but the bucket.
        return "STORAGE_UNAVAILABLE", true
    end
    return PART_CODES[answered] or "STORAGE_UNAVAILABLE", not connected or answered >= 400 and answered < 500
end

return _M
