#!lua
-- Record a job as queued with its first ring due now. Refused when memory is full: no new work then.
-- ARGV: id, spec, base, adapter, labels, idempotency key's sha256 or '', fingerprint, idempotency TTL, most queued jobs,
--       spec without inline rows, solver, id of the job that a query asks about or ''
local id, idempotency = ARGV[1], P .. 'idempotency:' .. ARGV[6]

if ARGV[6] ~= '' then
  local kept = redis.call('GET', idempotency)
  local first, fingerprint = string.match(kept or '', '^(%S+) (.*)$')
  -- A key whose job was deleted or has expired is free again.
  if first and redis.call('EXISTS', job(first)) == 1 then
    if fingerprint ~= ARGV[7] then return { 'reused' } end
    return { 'replayed', redis.call('HGETALL', job(first)) }
  end
end
-- The same id again is the same call again: its first reply was lost on the way.
if redis.call('EXISTS', job(id)) == 1 then return { 'replayed', redis.call('HGETALL', job(id)) } end
if redis.call('ZCARD', QUEUED) >= tonumber(ARGV[9]) then return { 'full' } end

redis.call('SET', spec(id), ARGV[2])
redis.call('HSET', job(id), 'id', id, 'view', ARGV[10], 'base', ARGV[3], 'adapter', ARGV[4], 'labels', ARGV[5],
  'solver', ARGV[11], 'query_of', ARGV[12], 'attempt', 1, 'fence', 0, 'rings', 0, 'created_at', NOW, 'idempotency', ARGV[6])
enter(id, 'queued')
tell(id, 'created')
redis.call('ZADD', JOBS, 0, id)
redis.call('ZADD', QUEUED, NOW, id)
if ARGV[6] ~= '' then redis.call('SET', idempotency, id .. ' ' .. ARGV[7], 'PX', ARGV[8]) end
return { 'created', redis.call('HGETALL', job(id)) }
