--- Reads the keys that sign tokens again while the edge runs (`python -m api keys rotate`).
-- A file and not a call of the API's: who has the edge's key, or listens on a way to the API, must not be given what
-- signs tokens. The workers have to be able to read it, as the API has.

local journal = require("sluice.platform.journal")
local settings = require("sluice.platform.settings")
local timer = require("sluice.platform.timer")
local verified = require("sluice.identity.verified")

local _M = {}

-- As api/core/keys.py.
local INTERVAL = 1

local known = table.concat(settings.keys, ",")

local function look()
    local keys, err = settings.read_keys(settings.secret_keys_file)
    if not keys then
        -- The tokens in use stay valid.
        journal.note("the token keys cannot be read again, those that were read stay: " .. err)
        return
    end
    local found = table.concat(keys, ",")
    if found ~= known then
        known = found
        verified.use(keys)
    end
end

--- Starts this worker's timer. Its first look is immediate: the file may have changed since nginx was started.
function _M.start()
    timer.at_once_and_every(INTERVAL, look, "looking at the keys")
end

return _M
