local cjson = require("cjson")
local response = require("sluice.response")

describe("response", function()
    for _, code in ipairs(response.codes()) do
        it("answers " .. code .. " in the standard shape", function()
            local status, headers, body = response.error(code, "0a")
            assert.equal(status, response.status_of(code))
            assert.is_true(status >= 400 and status < 600)
            assert.equal("application/json", headers["Content-Type"])
            assert.equal("no-store", headers["Cache-Control"])
            assert.equal(status == 401 and "Bearer" or nil, headers["WWW-Authenticate"])
            -- 429, 503 and 504 are for errors where a retry helps, and have Retry-After.
            assert.equal(status == 429 or status == 503 or status == 504, headers["Retry-After"] ~= nil)
            local answer = cjson.decode(body)
            assert.equal(code, answer.error.code)
            assert.equal("0a", answer.error.request_id)
            assert.is_true(#answer.error.message > 10)
            assert.truthy(code:match("^[A-Z]+[A-Z_]*[A-Z]$"))
        end)
    end

    it("has a code for every status that nginx makes", function()
        for status = 400, 599 do
            for _, route in ipairs({ "api", "part", "link", "content", "health", "" }) do
                assert.truthy(response.status_of(response.code_of(route, status)))
            end
        end
    end)

    it("reports nginx's errors with stored bytes as the storage's", function()
        assert.equal("NOT_FOUND", response.code_of("api", 404))
        assert.equal("STORAGE_UNAVAILABLE", response.code_of("link", 404))
        assert.equal("STORAGE_UNAVAILABLE", response.code_of("content", 403))
        assert.equal("STORAGE_UNAVAILABLE", response.code_of("part", 500))
        assert.equal("INTERNAL_ERROR", response.code_of("api", 500))
    end)
end)
