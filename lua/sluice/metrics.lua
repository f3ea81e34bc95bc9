--- The edge's metrics, for Prometheus.
-- A request adds to plain tables of its worker, and a timer moves them into a shared dict: the hot path takes no lock
-- for it. Labels come from fixed lists, never from a client, so that the number of series is bounded.

local journal = require("sluice.platform.journal")
local timer = require("sluice.platform.timer")

local ngx = ngx
local var = ngx.var

local _M = {}

local FLUSH_SECONDS = 1
-- Seconds; as the API's own (api/core/metrics.py).
local BOUNDS = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 }

-- name, what it is, and the two labels that every counter has here.
local COUNTERS = {
    requests = { "sluice_edge_requests_total", "Requests by location and status", "route", "status" },
    sent = { "sluice_edge_sent_bytes_total", "Bytes of answers, headers included", "route", "storage" },
    received = { "sluice_edge_received_bytes_total", "Bytes of requests, headers included", "route", "storage" },
    tokens = { "sluice_edge_tokens_total", "Tokens by purpose, and how they were judged", "purpose", "verdict" },
    limits = { "sluice_edge_limits_total", "What limits said", "limit", "verdict" },
    lookups = { "sluice_edge_lookups_total", "Where what is cached at the edge was found", "cache", "found" },
    failures = { "sluice_edge_failures_total", "Refusals and failures by location and error code", "route", "code" },
    fallbacks = { "sluice_edge_fallbacks_total", "Replicas in whose place another one was read", "storage", "reason" },
    waits = { "sluice_edge_upstream_seconds", "Seconds that an upstream took to answer", "upstream", "le" },
    waited = { "sluice_edge_upstream_seconds_sum", "", "upstream", "" },
}

local shared = ngx.shared.metrics
local pending = {}
for family in pairs(COUNTERS) do
    pending[family] = {}
end

--- Adds to a counter.
-- @param family a key of COUNTERS
-- @param first, second its labels' values, of a fixed list
-- @param amount 1 when left out
function _M.add(family, first, second, amount)
    local counts = pending[family]
    local inner = counts[first]
    if not inner then
        inner = {}
        counts[first] = inner
    end
    inner[second] = (inner[second] or 0) + (amount or 1)
end

local add = _M.add

-- Adds every time in a variable such as $upstream_response_time ("0.003, 0.002"; "-" if there was none).
local function observe(upstream, times)
    for text in times:gmatch("[%d.]+") do
        local seconds = tonumber(text)
        local bucket = #BOUNDS + 1
        for i = 1, #BOUNDS do
            if seconds <= BOUNDS[i] then
                bucket = i
                break
            end
        end
        add("waits", upstream, bucket)
        add("waited", upstream, "", seconds)
    end
end

-- nginx' words for the first piece of an answer.
local CACHE_STATES = { HIT = "edge", MISS = "storage", EXPIRED = "storage", BYPASS = "storage" }
local BY_API = { api = true, health = true, content = true }
local MOVES_BYTES = { part = true, link = true, content = true }

--- Counts a request that has ended; runs in the log phase of every one.
function _M.count()
    local route = var.route
    if not route or route == "" then
        route = "other"
    end
    local storage = ""
    if MOVES_BYTES[route] then
        storage = var.storage_label
        if storage == "" then
            storage = "local"
        end
        if var.storage_kind ~= "" then
            local cached = var.upstream_cache_status
            if cached then
                add("lookups", "content", CACHE_STATES[cached] or "other")
            end
            local times = var.upstream_response_time
            if times then
                -- "the API's : the storage's" if the API redirected.
                observe("storage", times:match(": *(.*)$") or times)
            end
        end
    end
    if BY_API[route] then
        local times = var.upstream_response_time
        if times then
            observe("api", times:match("^[^:]*"))
        end
    end
    add("requests", route, ngx.status)
    add("sent", route, storage, tonumber(var.bytes_sent))
    add("received", route, storage, tonumber(var.request_length))
end

local function flush()
    for family, counts in pairs(pending) do
        for first, inner in pairs(counts) do
            for second, amount in pairs(inner) do
                local ok, err = shared:incr(family .. "\n" .. first .. "\n" .. second, amount, 0)
                if not ok then
                    journal.note("could not count: " .. err)
                end
            end
        end
        pending[family] = {}
    end
end

local function lines_of(family, values)
    local name, help, first_label, second_label = unpack(COUNTERS[family])
    local lines = { "# HELP " .. name .. " " .. help, "# TYPE " .. name .. " counter" }
    for first, inner in pairs(values) do
        for second, value in pairs(inner) do
            table.insert(lines, string.format('%s{%s="%s",%s="%s"} %.17g', name, first_label, first, second_label,
                second, value))
        end
    end
    return lines
end

local function histogram_lines(buckets, sums)
    local name, help = unpack(COUNTERS.waits)
    local lines = { "# HELP " .. name .. " " .. help, "# TYPE " .. name .. " histogram" }
    for upstream, counts in pairs(buckets) do
        local total = 0
        for i = 1, #BOUNDS + 1 do
            total = total + (counts[tostring(i)] or 0)
            table.insert(lines, string.format('%s_bucket{upstream="%s",le="%s"} %d', name, upstream,
                BOUNDS[i] or "+Inf", total))
        end
        local sum = (sums[upstream] or {})[""] or 0
        table.insert(lines, string.format('%s_sum{upstream="%s"} %.17g', name, upstream, sum))
        table.insert(lines, string.format('%s_count{upstream="%s"} %d', name, upstream, total))
    end
    return lines
end

local function gauge(lines, name, help, values)
    table.insert(lines, "# HELP " .. name .. " " .. help)
    table.insert(lines, "# TYPE " .. name .. " gauge")
    for labels, value in pairs(values) do
        table.insert(lines, string.format("%s%s %.17g", name, labels, value))
    end
end

local function gauges(lines, feed_age)
    gauge(lines, "sluice_edge_connections", "Connections of clients by what they are at", {
        ['{state="reading"}'] = tonumber(var.connections_reading),
        ['{state="writing"}'] = tonumber(var.connections_writing),
        ['{state="waiting"}'] = tonumber(var.connections_waiting),
    })
    local free, capacity = {}, {}
    for name, dict in pairs(ngx.shared) do
        local label = string.format('{dict="%s"}', name)
        free[label], capacity[label] = dict:free_space(), dict:capacity()
    end
    gauge(lines, "sluice_edge_dict_free_bytes", "Bytes of whole free pages in a shared dict", free)
    gauge(lines, "sluice_edge_dict_bytes", "Bytes of a shared dict", capacity)
    if feed_age then
        gauge(lines, "sluice_edge_revocations_age_seconds", "Seconds since revocations were last asked for",
            { [""] = feed_age })
    end
end

--- The edge's figures in Prometheus' text format.
-- @param feed_age seconds since the last good answer about revocations, or nil
function _M.text(feed_age)
    flush()
    local values = {}
    for family in pairs(COUNTERS) do
        values[family] = {}
    end
    for _, key in ipairs(shared:get_keys(0)) do
        local family, first, second = key:match("^(.-)\n(.-)\n(.*)$")
        if values[family] then
            values[family][first] = values[family][first] or {}
            values[family][first][second] = shared:get(key)
        end
    end
    local lines = {}
    for family in pairs(COUNTERS) do
        if family ~= "waits" and family ~= "waited" then
            for _, line in ipairs(lines_of(family, values[family])) do
                table.insert(lines, line)
            end
        end
    end
    for _, line in ipairs(histogram_lines(values.waits, values.waited)) do
        table.insert(lines, line)
    end
    gauges(lines, feed_age)
    return table.concat(lines, "\n") .. "\n"
end

--- Starts this worker's timer.
function _M.start()
    timer.every(FLUSH_SECONDS, flush, "counting")
end

--- Moves the remaining counts when this worker ends.
_M.stop = flush

return _M
