#!lua flags=allow-oom
-- Remove an ended job and all that belongs to it.
-- ARGV: id
local id = ARGV[1]
local fence, finished_at, idempotency = unpack(redis.call('HMGET', job(id), 'fence', 'finished_at', 'idempotency'))
if not fence then return 'no_job' end
if not finished_at then return 'not_ended' end

redis.call('UNLINK', job(id), spec(id), events(id), scores(id, fence))
forget(id)
if idempotency ~= '' then redis.call('DEL', P .. 'idempotency:' .. idempotency) end
return 'ok'
