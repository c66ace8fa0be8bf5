#!lua flags=no-writes
-- The same piece of a chunk of committed vectors: {'ok', chunks of the first, piece...}, or {why not, state}.
-- ARGV: id, index of the chunk, first byte from 1, last byte, names...
local id, index, first, last = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local status, fence, result_until = unpack(redis.call('HMGET', job(id), 'status', 'fence', 'result_until'))
if not status then return { 'no_job' } end
if status ~= 'succeeded' then return { 'not_ready', status } end

local key, answer = scores(id, fence), { 'ok' }
for i = 5, #ARGV do
  local count, chunk = unpack(redis.call('HMGET', key, 'n/' .. ARGV[i], index .. '/' .. ARGV[i]))
  if not count then
    if NOW >= tonumber(result_until) then return { 'expired' } end
    return { 'no_vector' }
  end
  if i == 5 then table.insert(answer, tonumber(count)) end
  table.insert(answer, string.sub(chunk or '', first, last))
end
return answer
