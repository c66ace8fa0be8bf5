#!lua flags=allow-oom
-- One pass: take expired leases away, take the rings that are due, forget records that have expired.
-- Taking and marking are one step, so no two callers are given the same ring.
-- ARGV: ring again, max attempts, record TTL, error of a lost job with '{attempts}' in it, most jobs to take
local ring_again, max_attempts, record_ttl, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[5]
local rings, requeued, failed = {}, {}, {}

local function due(key) return redis.call('ZRANGEBYSCORE', key, '-inf', NOW, 'LIMIT', 0, limit) end

for _, id in ipairs(due(RUNNING)) do
  local status, attempt = unpack(redis.call('HMGET', job(id), 'status', 'attempt'))
  close_attempt(id, 'lost')
  drop_scores(id)
  tell(id, 'lease_lost')
  count('lease_lost', 1)
  if status == 'cancelling' then
    finish(id, 'cancelled', record_ttl)
  elseif tonumber(attempt) >= max_attempts then
    local detail = string.gsub(ARGV[4], '{attempts}', attempt)
    redis.call('HSET', job(id), 'error', detail)
    finish(id, 'failed', record_ttl, cjson.decode(detail).code)
    table.insert(failed, id)
  else
    redis.call('HSET', job(id), 'attempt', attempt + 1, 'rings', 0)
    redis.call('HDEL', job(id), 'phase', 'progress', 'progress_at')
    enter(id, 'queued')
    tell(id, 'requeued')
    redis.call('ZREM', RUNNING, id)
    redis.call('ZADD', QUEUED, NOW, id)
    table.insert(requeued, id)
  end
end

for _, id in ipairs(due(QUEUED)) do
  -- Each further ring waits twice as long, up to 16 times: a job behind a long backlog must not fill the queue with
  -- messages about itself.
  local sent = redis.call('HINCRBY', job(id), 'rings', 1)
  redis.call('ZADD', QUEUED, NOW + ring_again * 2 ^ math.min(sent - 1, 4), id)
  table.insert(rings, { id, tonumber(redis.call('HGET', job(id), 'attempt')) })
end

for _, id in ipairs(due(ENDED)) do forget(id) end

return { rings, requeued, failed }
