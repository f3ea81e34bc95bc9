--- Which cached blobs are worth a copy in one file on the edge's disk, beside their pieces.
-- nginx reads every piece of an answer into memory, as Lua's body filter has it; a file goes to the client by
-- sendfile, like one of local storage. When all pieces of a blob were found on the disk in one answer, the next answer
-- that is the whole blob leaves a copy behind, put together from the pieces, and those after it are sent from that.
-- These entries are hints: nginx may have removed pieces or the copy since then. It then fetches them again.

local _M = {}

local READY, KEPT = 1, 2
-- As nginx' slices (nginx/snippets/storage_cached.conf).
local PIECE = 1048576
-- A blob of fewer pieces gains little, and would take its room twice.
local FEWEST = 4
local READY_SECONDS = 3600

local shared = ngx.shared.heat

--- Whether an answer is to be sent from the copy, or leave one behind.
-- @param object the cached object
-- @param is_range whether the answer is only a part of the object: a range does not wait until a whole copy is made
function _M.wants_copy(object, is_range)
    local state = shared:get(object)
    return state == KEPT or state == READY and not is_range
end

--- Notes that all pieces of a blob are there.
-- @param count how many were found in one answer
-- @param size of the blob
function _M.note_pieces(object, count, size)
    if count >= FEWEST and count == math.ceil(size / PIECE) and not shared:get(object) then
        shared:set(object, READY, READY_SECONDS)
    end
end

--- Notes whether the copy was there.
function _M.note_copy(object, found)
    if found then
        shared:set(object, KEPT)
    elseif shared:get(object) == KEPT then
        shared:delete(object)
    end
end

return _M
