--- Why a storage did not do as it was asked, once nginx is left with a status. access.lua answers with the code.

local journal = require("sluice.platform.journal")
local limits = require("sluice.limits.limits")
local proxy = require("sluice.storage.proxy")
local response = require("sluice.response")
local settings = require("sluice.platform.settings")
local target = require("sluice.download.target")

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
    else
        target.forget(subject)
        journal.note("local storage could not give file " .. subject .. " (" .. status .. ")")
    end
    return "STORAGE_UNAVAILABLE"
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

-- A target that no longer holds (its URL has expired, keys were changed, another replica serves) is asked for anew,
-- once.
local function of_blob(answered)
    journal.note("a storage could not give file " .. var.subject .. " (" .. answered .. ")")
    if var.storage_final == "" then
        var.storage_final = "1"
        local found, problem = target.renew(var.subject)
        if not found then
            return problem
        elseif found.uri ~= var.storage_uri and not proxy.aim_at_blob(found) then
            return nil
        end
    end
    return proxy.code_of_get(answered)
end

-- Which of nginx' own limits it was.
local function of_limit()
    return var.limit_conn_status == "REJECTED" and "CONNECTIONS_LIMITED" or "REQUESTS_LIMITED"
end

--- The error code for a status that nginx made itself.
-- @return the code; nil where the same is to be tried once more, at another place
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
    return code == "STORAGE_UNAVAILABLE" and of_local(route, status) or code
end

return _M
