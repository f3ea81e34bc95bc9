--- The end of every request: its traffic is booked and counted.

local count = require("sluice.metrics").count
local finish = require("sluice.limits.traffic").finish

return function()
    finish()
    count()
end
