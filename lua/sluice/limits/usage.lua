--- Counts the bytes sent and received per subject, and reports them to the API.
-- Each worker counts in a Lua table, so a response costs one addition. Once per second it moves its counts to a list
-- in a shared dict. Every few seconds one worker at a time reports the list in batches. A batch has a unique number, so
-- the API books it only once even if it is sent repeatedly. If a worker is killed, the counts of its last second are
-- lost; if the machine fails, those since the last report. A worker that ends regularly reports its counts. If it is
-- too late for that, or the API is down, it writes them to a file, which the next report sends, even after a restart.

local cjson = require("cjson.safe")
local api = require("sluice.platform.api")
local journal = require("sluice.platform.journal")
local quota = require("sluice.limits.quota")
local random = require("sluice.platform.random")
local settings = require("sluice.platform.settings")
local tier = require("sluice.limits.tier")
local timer = require("sluice.platform.timer")

local _M = {}

local MOST_SUBJECTS = 100000
local CHUNK_ROWS, BATCH_ROWS = 500, 2000
local LOCK_SECONDS = 10

local queue = ngx.shared.usage
local feed = ngx.shared.feed

local mine, count = {}, 0
local sending = false

--- Counts the bytes of a finished response, or of a piece of one.
-- @param subject kind:id
-- @param sent, received bytes
function _M.add(subject, sent, received)
    local row = mine[subject]
    if row then
        row[1] = row[1] + sent
        row[2] = row[2] + received
    elseif count < MOST_SUBJECTS then
        mine[subject] = { sent, received }
        count = count + 1
    else
        journal.note("usage of more subjects than there is room for was not counted")
    end
end

-- Moves this worker's counts to the list. If the list is full, they stay here until the next try.
local function push()
    if count == 0 then
        return
    end
    local taken, today = mine, os.date("!%Y-%m-%d", ngx.time())
    mine, count = {}, 0
    local chunk = {}
    local function hand_over()
        local ok, err = queue:lpush("queue", cjson.encode(chunk))
        if not ok then
            journal.note("usage waits in the workers: " .. tostring(err))
            for _, row in ipairs(chunk) do
                _M.add(row[1], row[3], row[4])
            end
        end
        chunk = {}
    end
    for subject, row in pairs(taken) do
        table.insert(chunk, { subject, today, row[1], row[2] })
        if #chunk == CHUNK_ROWS then
            hand_over()
        end
    end
    if #chunk > 0 then
        hand_over()
    end
end

-- The id of this edge in its batches; it lives as long as the shared memory.
local function edge()
    local id = feed:get("usage_edge")
    if not id then
        feed:safe_add("usage_edge", random.hex(16))
        id = feed:get("usage_edge")
    end
    return id
end

-- The next batch from the list, with one row per subject and day; nil if the list is empty.
local function compose()
    local rows, found = {}, 0
    while found < BATCH_ROWS do
        local chunk = queue:rpop("queue")
        if not chunk then
            break
        end
        for _, row in ipairs(cjson.decode(chunk)) do
            local key = row[1] .. " " .. row[2]
            local same = rows[key]
            if same then
                same[4] = same[4] + row[3]
                same[5] = same[5] + row[4]
            else
                local kind, id = row[1]:match("^(%l+):(.*)$")
                rows[key] = { kind, id, row[2], row[3], row[4] }
                found = found + 1
            end
        end
    end
    if found == 0 then
        return nil
    end
    local list, totals = {}, {}
    for _, row in pairs(rows) do
        table.insert(list, row)
        if quota.is_known(row[1] .. ":" .. row[2]) then
            table.insert(totals, { row[1], row[2] })
        end
    end
    -- cjson would encode an empty list as an object.
    return cjson.encode({
        edge = edge(), sequence = feed:incr("usage_sequence", 1, 0), rows = list, totals = totals[1] and totals,
    })
end

-- @return whether the batch is done: the API has booked it, or will never accept it
local function send(batch)
    local status, body = api.post("/internal/usage", batch)
    if status == 200 then
        local answer = cjson.decode(body)
        local reported = cjson.decode(batch)
        -- Batches from before a restart are not part of this edge's unreported sums.
        local rows = reported.edge == edge() and reported.rows or {}
        quota.settle_flush(rows, type(answer) == "table" and answer.totals or {})
        return true
    elseif status and status >= 400 and status < 500 and status ~= 404 then
        journal.note("the API does not take usage (" .. status .. "); a batch is lost")
        return true
    end
    journal.note("usage waits for the API: " .. tostring(status or body))
    return false
end

-- Sends the file of workers that ended while the API was down.
local function send_file()
    local path = settings.usage_file
    local taken = path .. ".taken"
    local file = io.open(taken, "r")
    if not file then
        if not os.rename(path, taken) then
            return true
        end
        file = io.open(taken, "r")
    end
    local done = true
    for line in file and file:lines() or function() end do
        feed:expire("usage_lock", LOCK_SECONDS)
        done = done and send(line)
    end
    if file then
        file:close()
    end
    if done then
        os.remove(taken)
    end
    return done
end

local function send_all()
    if not send_file() then
        return
    end
    local batch = queue:get("inflight")
    if not batch then
        batch = compose()
    end
    while batch do
        feed:expire("usage_lock", LOCK_SECONDS)
        queue:safe_set("inflight", batch)
        if not send(batch) then
            return
        end
        if queue:get("inflight") == batch then
            queue:delete("inflight")
        end
        batch = compose()
    end
end

local function flush()
    if sending or not feed:safe_add("usage_lock", true, LOCK_SECONDS) then
        return
    end
    sending = true
    local ok, err = pcall(send_all)
    sending = false
    feed:delete("usage_lock")
    if not ok then
        journal.note("usage could not be reported: " .. tostring(err))
    end
end

local function tick(premature)
    push()
    -- The workers share one flush per interval. A worker that ends does not wait for its turn.
    if premature or feed:safe_add("usage_turn", true, tier.flush_seconds() - 0.5) then
        flush()
    end
end

--- Starts this worker's timer.
function _M.start()
    timer.every(1, tick, "the usage reports")
end

-- Writes everything that is not reported yet to the file, one batch per line.
local function write_down()
    local batches, batch = {}, queue:get("inflight")
    queue:delete("inflight")
    batch = batch or compose()
    while batch do
        table.insert(batches, batch .. "\n")
        batch = compose()
    end
    local text = table.concat(batches)
    if text == "" then
        return
    end
    local file, err = io.open(settings.usage_file, "a")
    if file then
        -- In a single write, since other workers append too.
        file:setvbuf("full", #text + 1)
        file:write(text)
        file:close()
    else
        ngx.log(ngx.ERR, "sluice: usage is lost: ", err)
    end
end

--- Ends this worker, when the API cannot be called any more: writes the remaining counts to the file.
-- Workers end at the same time. A worker that does not get the lock has moved its counts to the list before. So the
-- worker that had the lock checks the list again after it has released it.
function _M.stop()
    push()
    repeat
        if not sending and not feed:safe_add("usage_lock", true, LOCK_SECONDS) then
            return
        end
        write_down()
        sending = false
        feed:delete("usage_lock")
    until queue:llen("queue") == 0
end

return _M
