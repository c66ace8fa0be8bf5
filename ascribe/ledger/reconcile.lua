#!lua flags=allow-oom
-- One pass: take expired leases away, take the rings and the calls that are due, forget records that have expired.
-- Taking and marking are one step, so no two callers are given the same ring.
-- ARGV: ring again, retry backoff, most of it, max attempts, record TTL, error of a lost job with '{attempts}' in it,
--       most jobs to take, how many of a queue's first are rung again
local ring_again, backoff, most_backoff = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local max_attempts, record_ttl, lost_error = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local limit, head = ARGV[7], tonumber(ARGV[8])
local rings, requeued, failed, calls = {}, {}, {}, {}

local MOST_DOUBLINGS = 4

-- Each further message waits twice as long.
local function again(sent) return NOW + ring_again * 2 ^ math.min(sent - 1, MOST_DOUBLINGS) end

local function lose(record)
  local lost = redis.call('HINCRBY', job(record.id), 'lost', 1)
  drop_scores(record)
  close_attempt(record, 'lost')
  tell(record, 'lease_lost')
  count('lease_lost', 1)
  if record.status == 'cancelling' then
    finish(record, 'cancelled', record_ttl)
  elseif lost >= max_attempts then
    local detail = string.gsub(lost_error, '{attempts}', lost)
    change(record, 'error', detail)
    finish(record, 'failed', record_ttl, cjson.decode(detail).code)
    table.insert(failed, record.id)
  else
    next_attempt(record, NOW + math.min(backoff * 2 ^ (lost - 1), most_backoff))
    table.insert(requeued, record.id)
  end
  save(record)
end

-- Live workers by queue and environment, counted when the first call asks.
local workers
local function live(queue, environment)
  if not workers then
    workers = {}
    for _, entry in ipairs(redis.call('HVALS', P .. 'workers')) do
      local till, info = string.match(entry, '^(%d+) (.*)$')
      info = cjson.decode(info)
      local kind = info.queue .. ' ' .. info.environment
      if tonumber(till) > NOW then workers[kind] = (workers[kind] or 0) + 1 end
    end
  end
  return workers[queue .. ' ' .. environment] or 0
end

local function call(id)
  local status, queue, priority = unpack(redis.call('HMGET', job(id), 'status', 'queue', 'priority'))
  if status ~= 'running' or redis.call('ZCARD', parts(id)) == 0 then return redis.call('ZREM', CALLS, id) end
  redis.call('ZADD', CALLS, again(redis.call('HINCRBY', work(id), 'calls', 1)), id)
  local open = redis.call('ZCOUNT', parts(id), '-inf', NOW)
  local helpers = math.min(open, live(queue, redis.call('HGET', work(id), 'environment')) - 1)
  if helpers > 0 then table.insert(calls, { id, queue, priority, helpers }) end
end

for _, id in ipairs(due(RUNNING, limit)) do lose(load(id)) end
-- A job behind many others whose message was sent waits for them: should it have been lost, the job is soon among the
-- first. Otherwise a backlog fills the queue with messages about itself, and what is rung last waits for all of them.
local function ring(id)
  local attempt, queue, priority, sent = unpack(redis.call('HMGET', job(id), 'attempt', 'queue', 'priority', 'rings'))
  if tonumber(sent) > 0 and redis.call('ZRANK', state('queued', queue), id) >= head then
    return redis.call('ZADD', QUEUED, again(MOST_DOUBLINGS + 1), id)
  end
  redis.call('ZADD', QUEUED, again(redis.call('HINCRBY', job(id), 'rings', 1)), id)
  table.insert(rings, { id, tonumber(attempt), queue, priority })
end

for _, id in ipairs(due(QUEUED, limit)) do ring(id) end
for _, id in ipairs(due(CALLS, limit)) do call(id) end
for _, id in ipairs(due(ENDED, limit)) do forget(id) end

return { rings, requeued, failed, calls }
