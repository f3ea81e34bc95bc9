local conditional = require("sluice.conditional")

local TAG = '"0123abcd"'

describe("If-None-Match", function()
    for _, header in ipairs({
        TAG, "W/" .. TAG, " " .. TAG .. " ", '"x", ' .. TAG, TAG .. ', "x"', '"x",W/' .. TAG .. ',"y"', "*", " * ",
    }) do
        it("matches " .. header, function()
            assert.is_true(conditional.matches(header, TAG))
        end)
    end

    for _, header in ipairs({
        "", '"0123abc"', "0123abcd", '"x"', '"0123ABCD"', "w/" .. TAG, "x" .. TAG, TAG .. "x", '"*"', "*, " .. '"x"',
        TAG:sub(1, -2), '"' .. TAG .. '"',
    }) do
        it("does not match " .. header, function()
            assert.is_false(conditional.matches(header, TAG))
        end)
    end
end)
