#!lua flags=allow-oom
-- queued -> cancelled, running -> cancelling, anything else stays. Returns the record, or nothing.
-- ARGV: id, record TTL
local record = load(ARGV[1])
if not record then return false end

if record.status == 'queued' then
  dequeue(record)
  finish(record, 'cancelled', tonumber(ARGV[2]))
  save(record)
elseif record.status == 'running' then
  enter(record, 'cancelling')
  tell(record, 'cancel_requested')
  save(record)
end
return redis.call('HGETALL', job(record.id))
