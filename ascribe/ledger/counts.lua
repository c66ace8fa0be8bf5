#!lua flags=no-writes
-- The totals, and for each queue how many jobs are in each state and how long the first has been queued.
-- ARGV: states...
local queues = {}
for i, queue in ipairs(QUEUES) do
  local oldest = redis.call('ZRANGE', state('queued', queue), 0, 0, 'WITHSCORES')[2]
  queues[i] = { queue, oldest and NOW - oldest or 0 }
  for _, status in ipairs(ARGV) do table.insert(queues[i], redis.call('ZCARD', state(status, queue))) end
end
return { redis.call('HGETALL', P .. 'totals'), queues }
