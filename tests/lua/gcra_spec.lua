local fake = require("fake_ngx")

describe("gcra", function()
    local gcra, dicts

    before_each(function()
        dicts = fake.install("clocks")
        package.loaded["sluice.limits.gcra"] = nil
        gcra = require("sluice.limits.gcra")
    end)

    after_each(function()
        _G.ngx = nil
        package.loaded["sluice.platform.journal"], package.loaded["sluice.limits.gcra"] = nil, nil
    end)

    local function takes(limit, count)
        local passed = 0
        for _ = 1, count do
            if not gcra.take("k", limit) then
                passed = passed + 1
            end
        end
        return passed
    end

    for _, case in ipairs({ { 1, 1 }, { 10, 1 }, { 20, 40 }, { 0.5, 10 }, { 1000, 4000 } }) do
        local rate, burst = case[1], case[2]

        it("lets a burst pass and then the rate: " .. rate .. "/" .. burst, function()
            local limit = gcra.limit(rate, burst)
            assert.equal(burst, takes(limit, burst + 10))
            for _ = 1, 5 do
                fake.time = fake.time + 3 / rate
                local passed = takes(limit, 10)
                assert.is_true(passed >= math.min(2, burst) and passed <= math.min(burst, 4), passed)
            end
            fake.time = fake.time + burst / rate + 1
            assert.equal(burst, takes(limit, burst + 10))
        end)

        it("never lets more pass than burst and rate allow: " .. rate .. "/" .. burst, function()
            local limit, began, passed = gcra.limit(rate, burst), fake.time, 0
            for step = 1, 3000 do
                fake.time = fake.time + (step % 7) * 0.3 / rate
                passed = passed + takes(limit, step % 3)
                assert.is_true(passed <= burst + (fake.time - began) * rate + 1)
            end
            -- With a burst of one, late requests lose their turn.
            assert.is_true(passed >= (fake.time - began) * rate * (burst > 1 and 0.9 or 0.4), passed)
        end)
    end

    it("returns the wait until the next request may pass", function()
        local limit = gcra.limit(2, 3)
        takes(limit, 3)
        local wait = gcra.take("k", limit)
        assert.is_true(math.abs(wait - 0.5) < 1e-3, wait)
        fake.time = fake.time + wait
        assert.is_nil((gcra.take("k", limit)))
    end)

    it("returns limit, remaining and reset", function()
        local limit = gcra.limit(2, 4)
        for left = 3, 0, -1 do
            local _, ahead = gcra.take("k", limit)
            assert.same({ 4, left, math.ceil((4 - left) / 2) }, { gcra.quota(limit, ahead) })
        end
        local _, ahead = gcra.take("k", limit)
        assert.same({ 4, 0, 2 }, { gcra.quota(limit, ahead) })
    end)

    it("keeps no entry of idle subjects", function()
        gcra.take("k", gcra.limit(10, 5))
        fake.time = fake.time + 0.2
        assert.is_nil(dicts.clocks:get("k"))
    end)

    it("keeps subjects apart", function()
        local limit = gcra.limit(1, 1)
        assert.is_nil((gcra.take("a", limit)))
        assert.is_nil((gcra.take("b", limit)))
        assert.truthy((gcra.take("a", limit)))
    end)

    it("lets everything pass when the dict is broken, and says so", function()
        dicts.clocks.broken = true
        local limit = gcra.limit(1, 1)
        assert.equal(20, takes(limit, 20))
        assert.equal(0, gcra.book("k", 5, 0))
        assert.truthy(package.loaded["sluice.platform.journal"].notes[1]:find("no memory"))
    end)

    it("resets clocks that are ahead because time was set back", function()
        local limit = gcra.limit(1, 1)
        takes(limit, 1)
        fake.time = fake.time - 3600
        assert.is_nil((gcra.take("k", limit)))
    end)

    it("paces bookings one after the other", function()
        assert.equal(0, gcra.book("k", 0.5, 0.2))
        assert.is_true(math.abs(gcra.book("k", 0.5, 0.2) - 0.5) < 1e-6)
        assert.is_true(math.abs(gcra.book("k", 0.25, 0.2) - 1) < 1e-6)
        fake.time = fake.time + 1.35
        -- A delay shorter than the slack is made up for.
        assert.is_true(math.abs(gcra.book("k", 0.5, 0.2) + 0.1) < 1e-6)
        fake.time = fake.time + 60
        assert.equal(0, gcra.book("k", 0.5, 0.2))
    end)
end)
