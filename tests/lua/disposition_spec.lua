local disposition = require("sluice.download.disposition")

describe("disposition", function()
    local HEADERS = {
        { "report.pdf", [[filename="report.pdf"; filename*=UTF-8''report.pdf]] },
        { "a b.txt", [[filename="a b.txt"; filename*=UTF-8''a%20b.txt]] },
        { 'say "hi".txt', [[filename="say _hi_.txt"; filename*=UTF-8''say%20%22hi%22.txt]] },
        { [[back\slash]], [[filename="back_slash"; filename*=UTF-8''back%5Cslash]] },
        { "100%41.txt", [[filename="100_41.txt"; filename*=UTF-8''100%2541.txt]] },
        { "../etc/passwd", [[filename=".._etc_passwd"; filename*=UTF-8''..%2Fetc%2Fpasswd]] },
        { "Grüße.txt", [[filename="Gr__e.txt"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.txt]] },
        { "世界.txt", [[filename="__.txt"; filename*=UTF-8''%E4%B8%96%E7%95%8C.txt]] },
        { "🚀", [[filename="_"; filename*=UTF-8''%F0%9F%9A%80]] },
        { "a\r\nSet-Cookie: x=y", [[filename="a__Set-Cookie: x=y"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x%3Dy]] },
        { "\0\1\127", [[filename="___"; filename*=UTF-8''%00%01%7F]] },
        { "\226\128\174gpj.exe", [[filename="_gpj.exe"; filename*=UTF-8''%E2%80%AEgpj.exe]] },
        { "\255\254broken", [[filename="__broken"; filename*=UTF-8''%FF%FEbroken]] },
        { "a;b='c',d(e)*!#$&+-.^_`|~", [[filename="a;b='c',d(e)*!#$&+-.^_`|~"; ]]
            .. [[filename*=UTF-8''a%3Bb%3D%27c%27%2Cd%28e%29%2A!#$&+-.^_`|~]] },
    }
    for _, case in ipairs(HEADERS) do
        it("writes " .. string.format("%q", case[1]), function()
            assert.equal("attachment; " .. case[2], disposition.header("attachment", case[1]))
        end)
    end

    it("is inline only if that is requested", function()
        assert.equal([[inline; filename="a"; filename*=UTF-8''a]], disposition.header("inline", "a"))
        assert.equal([[attachment; filename="a"; filename*=UTF-8''a]], disposition.header("INLINE; x", "a"))
    end)

    it("has no filename if there is no name", function()
        assert.equal("attachment", disposition.header("attachment", ""))
    end)

    it("is one line of printable ASCII for any name", function()
        for byte = 0, 255 do
            local header = disposition.header("attachment", "x" .. string.char(byte) .. "y")
            assert.is_nil(header:find("[^\32-\126]"))
            assert.equal(2, select(2, header:gsub('"', "")))
        end
    end)
end)
