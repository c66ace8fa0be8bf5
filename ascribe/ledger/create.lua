#!lua
-- Record a job as queued with its first ring due now. Refused when memory is full: no new work then.
-- ARGV: id, spec, idempotency key's sha256 or '', fingerprint, idempotency TTL, most queued jobs, queue, priority, model,
--       what else the record holds: name, value...
local id, idempotency = ARGV[1], P .. 'idempotency:' .. ARGV[3]

if ARGV[3] ~= '' then
  local kept = redis.call('GET', idempotency)
  local first, fingerprint = string.match(kept or '', '^(%S+) (.*)$')
  -- A key whose job was deleted or has expired is free again.
  if first and redis.call('EXISTS', job(first)) == 1 then
    if fingerprint ~= ARGV[4] then return { 'reused' } end
    return { 'replayed', redis.call('HGETALL', job(first)) }
  end
end
-- The same id again is the same call again: its first reply was lost on the way.
if redis.call('EXISTS', job(id)) == 1 then return { 'replayed', redis.call('HGETALL', job(id)) } end
if redis.call('ZCARD', QUEUED) >= tonumber(ARGV[6]) then return { 'full' } end

local queue, priority, model = ARGV[7], ARGV[8], ARGV[9]
redis.call('HSET', job(id), 'id', id, 'attempt', 1, 'fence', 0, 'rings', 0, 'lost', 0, 'created_at', NOW,
  'idempotency', ARGV[3], 'queue', queue, 'priority', priority, 'model', model, unpack(ARGV, 10))
local record = {
  id = id, attempt = 1, revision = 0, events = 0, queue = queue, priority = priority, model = model, changes = {}
}
enqueue(record, NOW)
tell(record, 'created')
save(record)
redis.call('SET', spec(id), ARGV[2])
redis.call('ZADD', JOBS, 0, id)
if ARGV[3] ~= '' then redis.call('SET', idempotency, id .. ' ' .. ARGV[4], 'PX', ARGV[5]) end
return { 'created', redis.call('HGETALL', job(id)) }
