--- Reads the golden tokens that Python's tests read too (tests/vectors/make_tokens.py).

local cjson = require("cjson")

local folder = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$")
local file = assert(io.open(folder .. "/../vectors/tokens.json", "r"))
local vectors = cjson.decode(file:read("*a"))
file:close()

return vectors
