#!lua flags=no-writes
-- One chunk of a committed vector: {'ok', chunks in all, chunk}, or {why not, state}.
-- ARGV: id, name, index
local id, name = ARGV[1], ARGV[2]
local status, fence, result_until = unpack(redis.call('HMGET', job(id), 'status', 'fence', 'result_until'))
if not status then return { 'no_job' } end
if status ~= 'succeeded' then return { 'not_ready', status } end

local count, chunk = unpack(redis.call('HMGET', scores(id, fence), 'n/' .. name, ARGV[3] .. '/' .. name))
if count then return { 'ok', tonumber(count), chunk } end
if NOW >= tonumber(result_until) then return { 'expired' } end
return { 'no_vector' }
