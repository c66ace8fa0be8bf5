#!lua flags=allow-oom
-- Lay out parts of a running job for any worker of this environment to take.
-- ARGV: id, fence, environment, place of the first of these parts: 0 replaces what was offered before, names...
local id, environment, place = ARGV[1], ARGV[3], tonumber(ARGV[4])
if not owned(id, ARGV[2]) then return 'lost' end

if place == 0 then
  -- Tokens go on where they were: a worker that holds a part offered before must not pass for one of now.
  local token = redis.call('HGET', work(id), 'token')
  redis.call('UNLINK', parts(id), work(id), finished(id))
  redis.call('HSET', work(id), 'environment', environment, 'token', token or 0, 'calls', 0)
  redis.call('ZADD', CALLS, NOW, id)
end
for i = 5, #ARGV do redis.call('ZADD', parts(id), place + i - 5, ARGV[i]) end
return 'ok'
