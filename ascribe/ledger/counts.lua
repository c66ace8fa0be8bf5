#!lua flags=no-writes
-- How many jobs are in each state, how long the first has been queued, and the totals.
-- ARGV: states...
local jobs = {}
for i, status in ipairs(ARGV) do jobs[i] = redis.call('ZCARD', state(status)) end
local oldest = redis.call('ZRANGE', state('queued'), 0, 0, 'WITHSCORES')[2]
return { jobs, oldest and NOW - oldest or 0, redis.call('HGETALL', P .. 'totals') }
