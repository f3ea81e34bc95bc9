local conditional = require("sluice.download.conditional")

local TAG = '"0123abcd"'

local function judge(request)
    return conditional.judge(request, TAG, 100)
end

local STRONG = { TAG, " " .. TAG .. " ", '"x", ' .. TAG, TAG .. ', "x"', '"x",' .. TAG .. ',"y"', "*", " * " }
local WEAK = { "W/" .. TAG, '"x",W/' .. TAG .. ',"y"' }
local OTHER = {
    "", '"0123abc"', "0123abcd", '"x"', '"0123ABCD"', "w/" .. TAG, "x" .. TAG, TAG .. "x", '"*"', "*, " .. '"x"',
    TAG:sub(1, -2), '"' .. TAG .. '"',
}

describe("If-None-Match", function()
    for _, list in ipairs({ STRONG, WEAK }) do
        for _, header in ipairs(list) do
            it("matches " .. header, function()
                assert.equal("NOT_MODIFIED", judge({ http_if_none_match = header }))
            end)
        end
    end

    for _, header in ipairs(OTHER) do
        it("does not match " .. header, function()
            assert.is_nil(judge({ http_if_none_match = header }))
        end)
    end
end)

describe("If-Match", function()
    for _, header in ipairs(STRONG) do
        it("matches " .. header, function()
            assert.is_nil(judge({ http_if_match = header }))
        end)
    end

    for _, list in ipairs({ WEAK, OTHER }) do
        for _, header in ipairs(list) do
            it("does not match " .. header, function()
                assert.equal("PRECONDITION_FAILED", judge({ http_if_match = header }))
            end)
        end
    end
end)

describe("a download's conditions", function()
    it("are judged in the order of RFC 9110 section 13.2.2", function()
        local request = { http_if_match = '"x"', http_if_none_match = TAG, http_range = "bytes=100-" }
        assert.equal("PRECONDITION_FAILED", judge(request))
        request.http_if_match = TAG
        assert.equal("NOT_MODIFIED", judge(request))
        request.http_if_none_match = '"x"'
        assert.equal("RANGE_NOT_SATISFIABLE", judge(request))
        request.http_if_range = '"x"'
        assert.same({}, { judge(request) })
    end)

    it("pass a range on", function()
        assert.same({ nil, 5, 9 }, { judge({ http_range = "bytes=5-9" }) })
        assert.same({ nil, 5, 9 }, { judge({ http_range = "bytes=5-9", http_if_range = TAG }) })
        assert.same({}, { judge({}) })
    end)

    for _, header in ipairs({ '"x"', "W/" .. TAG, "Sat, 01 Jan 2099 00:00:00 GMT", TAG .. "x", "*", "" }) do
        it("send the whole content for If-Range: " .. header, function()
            assert.same({}, { judge({ http_range = "bytes=5-9", http_if_range = header }) })
        end)
    end

    it("send all of an empty content", function()
        assert.same({}, { conditional.judge({ http_range = "bytes=0-" }, TAG, 0) })
        assert.same({}, { conditional.judge({ http_range = "bytes=-5" }, TAG, 0) })
    end)
end)
