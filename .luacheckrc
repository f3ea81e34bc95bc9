-- nginx's Lua for the code, busted for its tests.
std = "ngx_lua"
max_line_length = 120
files["tests/lua"] = { std = "ngx_lua+busted" }
