--- The CPU that a header costs the edge: linear in its length, for any content.

local conditional = require("sluice.download.conditional")
local range = require("sluice.download.range")

local TAG = '"' .. ("0123456789abcdef"):rep(4) .. '"'
local BYTES = 32000
-- Quadratic work took 60,000 microseconds here; linear work takes up to 300.
local MOST_MICROSECONDS = 3000

local function fill(piece)
    return piece:rep(math.floor(BYTES / #piece))
end

local HEADERS = {
    ["the own tag, broken, again and again"] = fill(TAG .. "x "),
    ["the own tag, weak and broken"] = fill("W/" .. TAG .. "x "),
    ["foreign tags"] = fill('"a",'),
    ["commas"] = fill(","),
    ["blanks"] = fill(" "),
    ["blanks before the own tag"] = fill(" ") .. TAG .. "x",
    ["blanks behind the own tag"] = TAG .. fill(" ") .. "x",
    ["tabs and stars"] = fill("\t*"),
    ["an open quote"] = '"' .. fill("a"),
    ["marks of weak tags"] = fill("W/"),
    ["a range of blanks"] = "bytes=" .. fill(" "),
    ["a range of digits"] = "bytes=" .. fill("1"),
    ["a range of digits without end"] = "bytes=1-" .. fill("1") .. "x",
}

-- The minimum of several runs, because other processes use the CPU too.
local function microseconds(run)
    local least = math.huge
    for _ = 1, 7 do
        local began = os.clock()
        run()
        least = math.min(least, (os.clock() - began) * 1e6)
    end
    return least
end

describe("a header of 32 kB costs little:", function()
    for what, header in pairs(HEADERS) do
        it(what, function()
            for _, name in ipairs({ "http_if_none_match", "http_if_match" }) do
                assert.is_true(microseconds(function()
                    conditional.judge({ [name] = header }, TAG, 100)
                end) < MOST_MICROSECONDS)
            end
            assert.is_true(microseconds(function()
                range.select(header, 100)
            end) < MOST_MICROSECONDS)
        end)
    end
end)

describe("a list of entity tags", function()
    it("is read up to its 64th element", function()
        local function judge(foreign)
            return conditional.judge({ http_if_none_match = ('"x",'):rep(foreign) .. TAG }, TAG, 100)
        end
        assert.equal("NOT_MODIFIED", judge(63))
        assert.is_nil(judge(64))
    end)

    it("may hold commas and blanks in a foreign tag, and empty elements", function()
        assert.equal("NOT_MODIFIED", conditional.judge({ http_if_none_match = '"a, b" ,, ' .. TAG }, TAG, 100))
    end)
end)

describe("a range", function()
    it("of more than 64 bytes is the whole", function()
        assert.same({ 1, 2 }, { range.select("bytes=" .. (" "):rep(55) .. "1-2", 100) })
        assert.is_nil(range.select("bytes=" .. (" "):rep(56) .. "1-2", 100))
    end)
end)
