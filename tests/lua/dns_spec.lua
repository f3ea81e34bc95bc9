local dns = require("sluice.storage.dns")

local ID = "\18\52"

-- A record that points at the question's name.
local function record(kind, seconds, data)
    return "\192\12" .. string.char(0, kind, 0, 1, 0, 0, math.floor(seconds / 256), seconds % 256, 0, #data) .. data
end

local function answer(question, records, changes)
    changes = changes or {}
    return (changes.id or ID) .. (changes.flags or "\129\128") .. "\0\1" .. string.char(0, #records) .. "\0\0\0\0"
        .. (changes.question or question) .. table.concat(records)
end

local A = dns.question("storage.example", dns.A)
local AAAA = dns.question("storage.example", dns.AAAA)
local ADDRESS = record(1, 60, "\10\0\0\1")
local ALIAS = record(5, 30, "\3foo\192\12")

describe("dns", function()
    it("builds a question for a name", function()
        assert.equal("\7storage\7example\0\0\1\0\1", A)
        assert.equal(A, dns.question("storage.example.", dns.A))
        assert.equal("\18\52\1\0\0\1\0\0\0\0\0\0" .. A, dns.message(ID, A))
        assert.is_nil(dns.question(("x"):rep(64) .. ".example", dns.A))
    end)

    it("reads addresses and their TTL", function()
        local addresses, seconds = dns.read(answer(A, { ADDRESS, record(1, 20, "\10\0\0\255") }), ID, A, dns.A)
        assert.same({ "10.0.0.1", "10.0.0.255" }, addresses)
        assert.equal(20, seconds)
    end)

    it("reads the address behind an alias", function()
        assert.same({ "10.0.0.1" }, (dns.read(answer(A, { ALIAS, ADDRESS }), ID, A, dns.A)))
    end)

    it("reads IPv6 addresses, in brackets", function()
        local data = "\253\0" .. ("\0"):rep(13) .. "\1"
        assert.same({ "[fd00:0:0:0:0:0:0:1]" }, (dns.read(answer(AAAA, { record(28, 60, data) }), ID, AAAA, dns.AAAA)))
    end)

    it("limits the TTL to between 5 s and 5 minutes", function()
        assert.equal(5, select(2, dns.read(answer(A, { record(1, 0, "\10\0\0\1") }), ID, A, dns.A)))
        assert.equal(300, select(2, dns.read(answer(A, { record(1, 3600, "\10\0\0\1") }), ID, A, dns.A)))
    end)

    it("accepts upper case, which some servers return", function()
        assert.truthy(dns.read(answer(A, { ADDRESS }, { question = A:upper() }), ID, A, dns.A))
    end)

    for why, changes in pairs({
        ["of another id"] = { id = "\1\1" }, ["that is a question"] = { flags = "\1\0" },
        ["of another name"] = { question = AAAA },
    }) do
        it("ignores an answer " .. why, function()
            assert.same({ nil, "another" }, { dns.read(answer(A, { ADDRESS }, changes), ID, A, dns.A) })
        end)
    end

    it("reports a missing name, and a missing address", function()
        local none = answer(A, {}, { flags = "\129\131" })
        assert.same({ nil, "DNS answered with code 3" }, { dns.read(none, ID, A, dns.A) })
        assert.same({ nil, dns.NO_ADDRESS }, { dns.read(answer(A, { ALIAS }), ID, A, dns.A) })
        -- An address of another length is ignored.
        assert.same({ nil, dns.NO_ADDRESS }, { dns.read(answer(A, { record(1, 60, "\10\0\0") }), ID, A, dns.A) })
    end)

    it("reads the complete records of a truncated answer, and never throws", function()
        local whole = answer(A, { ADDRESS, ADDRESS })
        for length = 0, #whole do
            local ok, addresses = pcall(dns.read, whole:sub(1, length), ID, A, dns.A)
            assert.is_true(ok)
            assert.equal(length < #whole - 16 and 0 or length < #whole and 1 or 2, addresses and #addresses or 0)
        end
    end)

    it("terminates on a name that points nowhere", function()
        for _, garbage in ipairs({ "\63", "\192", ("\1x"):rep(50), "\0", "" }) do
            assert.is_nil((dns.read(answer(A, { garbage }), ID, A, dns.A)))
        end
    end)
end)
