#!lua
-- queued at this attempt -> running under the next fence. Refused when memory is full: the job waits.
-- ARGV: id, attempt, worker, lease
local id = ARGV[1]
local status, attempt = unpack(redis.call('HMGET', job(id), 'status', 'attempt'))
if status ~= 'queued' or attempt ~= ARGV[2] then return false end

local fence = redis.call('HINCRBY', job(id), 'fence', 1)
enter(id, 'running')
tell(id, 'started')
redis.call('HSET', job(id), 'started_at', NOW,
  'attempt:' .. attempt .. ':worker', ARGV[3], 'attempt:' .. attempt .. ':started_at', NOW)
redis.call('ZREM', QUEUED, id)
redis.call('ZADD', RUNNING, NOW + ARGV[4], id)
return { fence, redis.call('GET', spec(id)) }
