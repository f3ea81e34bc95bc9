local token = require("sluice.identity.token")
local vectors = require("vectors")

local NOW = 1700000001

-- A small private generator, so that a failure can be repeated: LuaJIT's math.random depends on the build.
local seed = 20240229
local function random(low, high)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return low + math.floor(seed / 65536) % (high - low + 1)
end

local function mutate(text)
    local at = random(1, #text)
    local kind = random(1, 6)
    if kind == 1 then -- another byte
        return text:sub(1, at - 1) .. string.char(random(0, 255)) .. text:sub(at + 1)
    elseif kind == 2 then -- a byte less
        return text:sub(1, at - 1) .. text:sub(at + 1)
    elseif kind == 3 then -- a byte more
        return text:sub(1, at) .. string.char(random(0, 255)) .. text:sub(at + 1)
    elseif kind == 4 then -- cut
        return text:sub(1, at)
    elseif kind == 5 then -- turned round
        return text:sub(at + 1) .. text:sub(1, at)
    end
    return text:sub(1, at) .. text:sub(random(1, #text))
end

describe("token", function()
    local verifier = token.new(vectors.keys)

    for i, vector in ipairs(vectors.valid) do
        it("verifies " .. vector.purpose .. " token " .. i, function()
            local mine = vector.keys and token.new(vector.keys) or verifier
            local claims, problem = mine:verify(vector.purpose, vector.token, NOW)
            assert.is_nil(problem)
            assert.same(vector.claims, claims)
        end)

        it("refuses valid token " .. i .. " after its expiry", function()
            local mine = vector.keys and token.new(vector.keys) or verifier
            local claims, problem = mine:verify(vector.purpose, vector.token, vector.claims.exp)
            assert.is_nil(claims)
            assert.equal("expired", problem)
            assert.truthy(mine:verify(vector.purpose, vector.token, vector.claims.exp - 1))
        end)
    end

    for _, vector in ipairs(vectors.invalid) do
        it("refuses " .. vector.purpose .. ": " .. vector.why, function()
            local claims, problem = verifier:verify(vector.purpose, vector.token, NOW)
            assert.is_nil(claims)
            assert.equal(vector.why == "expired" and "expired" or "invalid", problem)
        end)
    end

    it("has vectors of every kind for every purpose", function()
        local seen = {}
        for _, list in ipairs({ vectors.valid, vectors.invalid }) do
            for _, vector in ipairs(list) do
                seen[vector.purpose] = (seen[vector.purpose] or 0) + 1
            end
        end
        for _, purpose in ipairs({ "access", "link", "part" }) do
            assert.is_true(seen[purpose] > 30)
        end
    end)

    it("never verifies a changed token, and never throws", function()
        for _ = 1, 30000 do
            local vector = vectors.valid[random(1, #vectors.valid)]
            local text = mutate(vector.token)
            if random(1, 4) == 1 then
                text = mutate(text)
            end
            if text ~= vector.token then
                local ok, claims = pcall(verifier.verify, verifier, vector.purpose, text, NOW)
                assert.is_true(ok, text)
                assert.is_nil(claims, text)
            end
        end
    end)

    it("never throws on noise", function()
        for _ = 1, 5000 do
            local bytes = {}
            for i = 1, random(0, 200) do
                -- Mostly dots and base64url, so that the pieces are often in the right places.
                local kind = random(1, 10)
                bytes[i] = kind == 1 and "." or kind == 2 and string.char(random(0, 255)) or string.char(random(65, 90))
            end
            local ok, claims = pcall(verifier.verify, verifier, "access", table.concat(bytes), NOW)
            assert.is_true(ok)
            assert.is_nil(claims)
        end
    end)

    it("accepts no token if there are no keys", function()
        assert.is_nil(token.new({}):verify("access", vectors.valid[1].token, NOW))
    end)
end)
