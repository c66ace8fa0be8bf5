#!lua flags=allow-oom
-- Whoever holds a part keeps it, has finished it, or drops it.
-- ARGV: id, fence, name, token, 'keep' or 'finish' or 'drop', lease, worker
local id, name, token, verb = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
if owned(id, ARGV[2]) ~= 'running' then return 'lost' end
local held, done = unpack(redis.call('HMGET', work(id), 'token/' .. name, 'done/' .. name))
-- Said twice, because the first reply was lost on the way, is no error.
if verb == 'finish' and done == token then return 'ok' end
if held ~= token then return 'lost' end

if verb == 'keep' then
  redis.call('ZADD', parts(id), NOW + ARGV[6], name)
elseif verb == 'drop' then
  redis.call('ZADD', parts(id), 0, name)
  redis.call('HDEL', work(id), 'token/' .. name)
else
  redis.call('ZREM', parts(id), name)
  redis.call('HDEL', work(id), 'token/' .. name, 'takes/' .. name)
  redis.call('HSET', work(id), 'done/' .. name, token)
  redis.call('RPUSH', finished(id), name, ARGV[7])
end
return 'ok'
