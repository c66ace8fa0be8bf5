#!lua flags=allow-oom
-- queued -> cancelled, running -> cancelling, anything else stays. Returns the record, or nothing.
-- ARGV: id, record TTL
local id = ARGV[1]
local status = redis.call('HGET', job(id), 'status')
if not status then return false end

if status == 'queued' then
  finish(id, 'cancelled', tonumber(ARGV[2]))
elseif status == 'running' then
  enter(id, 'cancelling')
  tell(id, 'cancel_requested')
end
return redis.call('HGETALL', job(id))
