local fake = require("fake_ngx")

describe("lru", function()
    local lru

    setup(function()
        fake.install()
        lru = require("sluice.platform.lru")
    end)

    teardown(function()
        _G.ngx = nil
        package.loaded["sluice.platform.journal"] = nil
        package.loaded["resty.lrucache"], package.loaded["sluice.platform.lru"] = nil, nil
    end)

    it("holds three quarters of its slots, the newest", function()
        local cache = lru.new(16)
        for number = 1, 20 do
            cache:set("key " .. number, number)
        end
        for number = 1, 20 do
            assert.equal(number > 8 and number or nil, cache:get("key " .. number))
        end
    end)

    it("inserts a new key quickly when it is full", function()
        local cache, count = lru.new(8192), 8192
        for number = 1, count do
            cache:set("key " .. number, true)
        end
        local before = os.clock()
        for number = count + 1, 2 * count do
            cache:set("key " .. number, true)
        end
        -- Seconds; with every slot in use it took 1.8, and takes 0.01.
        assert.is_true(os.clock() - before < 0.5)
    end)
end)
