#!lua flags=allow-oom
-- Extend the lease and, when given, record progress. Returns the state, or 'lost'.
-- ARGV: id, fence, lease, progress or ''
local id = ARGV[1]
local status = owned(id, ARGV[2])
if not status then return 'lost' end

redis.call('ZADD', RUNNING, NOW + ARGV[3], id)
if ARGV[4] ~= '' then
  local phase = cjson.decode(ARGV[4]).phase
  if phase ~= redis.call('HGET', job(id), 'phase') then tell(id, 'phase', phase) end
  redis.call('HSET', job(id), 'phase', phase, 'progress', ARGV[4], 'progress_at', NOW)
  redis.call('HINCRBY', job(id), 'revision', 1)
end
return status
