--- Finds out why a storage failed, from the status that nginx has. access.lua sends the error code.

local download = require("sluice.download.download")
local fallback = require("sluice.download.fallback")
local journal = require("sluice.platform.journal")
local limits = require("sluice.limits.limits")
local proxy = require("sluice.storage.proxy")
local response = require("sluice.response")
local settings = require("sluice.platform.settings")
local target = require("sluice.download.target")

local ngx = ngx
local var = ngx.var

local _M = {}

local ENOENT = 2

--- Whether local storage is known to take no parts of an upload: complete and abort take its folder away. A folder that
-- a failing disk does not show is not gone.
function _M.is_closed(upload)
    local folder, _, errno = io.open(settings.storage_root .. "/parts/" .. upload, "r")
    if folder then
        folder:close()
    end
    return not folder and errno == ENOENT
end

local function of_local(route, status)
    local subject = var.subject
    if route == "part" then
        -- Complete or abort won the race while the body came.
        if subject ~= "" and _M.is_closed(subject) then
            return "UPLOAD_NOT_OPEN"
        end
        journal.note("local storage could not take a part of upload " .. subject .. " (" .. status .. ")")
        return "STORAGE_UNAVAILABLE"
    end
    local found = target.find(subject)
    if not found or not found.path then
        return "STORAGE_UNAVAILABLE"
    end
    local other, code = fallback.find(found, status == 404 and "missing" or "error")
    if not other then
        return code or "STORAGE_UNAVAILABLE"
    end
    return download.resume(other)
end

local function of_part(answered)
    local code, kept_nothing = proxy.code_of_put(answered)
    if kept_nothing then
        limits.forgive_try(var.subject, var.storage_part)
    end
    if code:find("^STORAGE") then
        journal.note("a storage could not take a part of upload " .. var.subject .. " (" .. answered .. ")")
    end
    return code
end

-- Why a replica of a proxied storage could not be read.
local REASONS = { [404] = "missing", [410] = "missing", [504] = "timeout" }

-- A target that no longer holds (the object is gone, its URL has expired, keys were changed) is asked for anew: another
-- replica, or another URL of the same.
local function of_blob(answered)
    local failed = { name = var.storage_label, uri = var.storage_uri, etag = ngx.header["ETag"] }
    if not failed.etag and var.storage_etag ~= "" then
        failed.etag = var.storage_etag
    end
    if var.storage_final == "" then
        local other, code = fallback.find(failed, REASONS[answered] or "error")
        if other then
            return download.resume(other)
        elseif code then
            return code
        end
    end
    return proxy.code_of_get(answered)
end

-- Which of nginx' own limits it was.
local function of_limit()
    return var.limit_conn_status == "REJECTED" and "CONNECTIONS_LIMITED" or "REQUESTS_LIMITED"
end

--- The error code for a status that nginx made itself.
-- @return the code; or nil, and the location that reads another replica
function _M.code_of(route, status)
    if status == 429 and (var.limit_req_status == "REJECTED" or var.limit_conn_status == "REJECTED") then
        return of_limit()
    end
    if var.storage_path ~= "" then
        local answered = proxy.answered()
        if not answered then
            return response.code_of("", status)
        end
        return (route == "part" and of_part or of_blob)(answered)
    end
    local code = response.code_of(route, status)
    if code == "STORAGE_UNAVAILABLE" then
        return of_local(route, status)
    end
    return code
end

return _M
