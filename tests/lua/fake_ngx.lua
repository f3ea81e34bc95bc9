--- The parts of nginx that modules need, outside nginx: a clock that tests advance, and shared dicts that follow it.

local _M = { time = 1700000000 }

local dict = {}
dict.__index = dict

local function live(self, key)
    local entry = self.entries[key]
    if entry and entry.ends and entry.ends < _M.time then
        self.entries[key] = nil
        return nil
    end
    return entry
end

function dict:incr(key, amount, init, ttl)
    if self.broken then
        return nil, "no memory"
    end
    local entry = live(self, key)
    if not entry then
        if not init then
            return nil, "not found"
        end
        entry = { value = init, ends = ttl and ttl > 0 and _M.time + ttl or nil }
        self.entries[key] = entry
    end
    entry.value = entry.value + amount
    return entry.value
end

function dict:expire(key, ttl)
    local entry = live(self, key)
    if entry then
        entry.ends = ttl > 0 and _M.time + ttl or nil
    end
    return entry ~= nil
end

function dict:get(key)
    local entry = live(self, key)
    return entry and entry.value
end

function dict:set(key, value, ttl)
    self.entries[key] = { value = value, ends = ttl and ttl > 0 and _M.time + ttl or nil }
    return true
end

function dict:safe_add(key, value, ttl)
    if live(self, key) then
        return false, "exists"
    elseif self.broken then
        return false, "no memory"
    end
    return self:set(key, value, ttl)
end

function dict:delete(key)
    self.entries[key] = nil
end

--- Installs a stand-in for nginx where modules look for it.
-- @param names of shared dicts
-- @return the dicts by name
function _M.install(...)
    local shared = {}
    for _, name in ipairs({ ... }) do
        shared[name] = setmetatable({ entries = {} }, dict)
    end
    _G.ngx = {
        shared = shared,
        now = function() return _M.time end,
        time = function() return math.floor(_M.time) end,
    }
    package.loaded["sluice.platform.journal"] = { notes = {}, note = function(text)
        table.insert(package.loaded["sluice.platform.journal"].notes, text)
    end }
    return shared
end

return _M
