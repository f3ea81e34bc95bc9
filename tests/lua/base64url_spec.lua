local base64url = require("sluice.identity.base64url")

describe("base64url", function()
    -- RFC 4648 section 10, without padding, and the two characters of the URL's alphabet.
    local KNOWN = {
        [""] = "", f = "Zg", fo = "Zm8", foo = "Zm9v", foob = "Zm9vYg", fooba = "Zm9vYmE", foobar = "Zm9vYmFy",
        ["\251\255\254"] = "-__-", ["\0"] = "AA", ["\0\0\0"] = "AAAA",
    }
    for bytes, text in pairs(KNOWN) do
        it("knows " .. text, function()
            assert.equal(text, base64url.encode(bytes))
            assert.equal(bytes, base64url.decode(text))
        end)
    end

    it("decodes what it encoded, at every length", function()
        for length = 0, 300 do
            local bytes = {}
            for i = 1, length do
                bytes[i] = string.char((i * 37 + length) % 256)
            end
            local text = table.concat(bytes)
            assert.equal(text, base64url.decode(base64url.encode(text)))
        end
    end)

    for _, text in ipairs({ "A", "Zh", "Zm9=", "Zg==", "Zm+v", "Zm/v", "Zm 9", "Zm9v\n", "\255\255", "AAAAA" }) do
        it("refuses " .. string.format("%q", text), function()
            assert.is_nil((base64url.decode(text)))
        end)
    end

    it("encodes input that is longer than its buffer, and refuses to decode it", function()
        local long = ("x"):rep(5000)
        assert.is_nil((base64url.decode(long)))
        assert.equal(6667, #base64url.encode(long))
    end)
end)
