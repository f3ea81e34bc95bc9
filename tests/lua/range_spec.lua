local range = require("sluice.download.range")

local SIZE = 10000

describe("range", function()
    for header, bytes in pairs({
        ["bytes=0-0"] = { 0, 0 }, ["bytes=0-"] = { 0, 9999 }, ["bytes=9999-9999"] = { 9999, 9999 },
        ["bytes=5-9"] = { 5, 9 }, ["bytes=00005-00009"] = { 5, 9 }, ["BYTES=5-9"] = { 5, 9 },
        ["bytes= 5-9 "] = { 5, 9 }, ["bytes=9999-"] = { 9999, 9999 },
        -- past the end: clipped
        ["bytes=5-10000"] = { 5, 9999 }, ["bytes=5-99999999999999999999999"] = { 5, 9999 },
        -- the last ones
        ["bytes=-1"] = { 9999, 9999 }, ["bytes=-10000"] = { 0, 9999 }, ["bytes=-10001"] = { 0, 9999 },
        ["bytes=-99999999999999999999999"] = { 0, 9999 },
    }) do
        it("takes " .. header, function()
            assert.same(bytes, { range.select(header, SIZE) })
        end)
    end

    for _, header in ipairs({ "bytes=10000-", "bytes=10000-10001", "bytes=99999999999999999999-", "bytes=-0" }) do
        it("finds nothing at " .. header, function()
            assert.is_false(range.select(header, SIZE))
        end)
    end

    for _, header in ipairs({
        "", "bytes", "bytes=", "bytes=-", "bytes=x", "bytes=1-x", "bytes=x-1", "lines=0-1", "bytes=9-5",
        "bytes=0-1,5-6", "bytes=0-,0-,0-", "bytes=,0-1", "bytes=0-1,", "bytes=5 - 9", "bytes=--5", "bytes=-5-",
        "bytes=1.0-2", "bytes=0x1-2", "bytes=+1-2", "bytes=1e3-", "0-1", "bytes:0-1", "bytes=0-1\0", "bytes 0-1/2",
    }) do
        it("sends the whole content for " .. string.format("%q", header), function()
            assert.is_nil(range.select(header, SIZE))
        end)
    end

    it("works for a content of one byte", function()
        assert.same({ 0, 0 }, { range.select("bytes=0-", 1) })
        assert.same({ 0, 0 }, { range.select("bytes=-7", 1) })
        assert.is_false(range.select("bytes=1-", 1))
    end)

    it("counts beyond 2^32", function()
        assert.same({ 5 * 2 ^ 40 - 2, 5 * 2 ^ 40 - 1 }, { range.select("bytes=-2", 5 * 2 ^ 40) })
        assert.same({ 2 ^ 33, 2 ^ 33 + 1 }, { range.select("bytes=8589934592-8589934593", 5 * 2 ^ 40) })
    end)
end)
