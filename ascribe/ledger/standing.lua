#!lua flags=no-writes
-- How many parts are open, taken, done.
-- ARGV: id, fence
local id = ARGV[1]
if not owned(id, ARGV[2]) then return 'lost' end
local open = redis.call('ZCOUNT', parts(id), '-inf', NOW) + redis.call('ZCOUNT', parts(id), 'inf', 'inf')
return { open, redis.call('ZCARD', parts(id)) - open, redis.call('LLEN', finished(id)) / 2 }
