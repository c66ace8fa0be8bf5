#!lua flags=allow-oom
-- The owner ends its attempt: succeeded with a manifest, failed with an error, or cancelled.
-- ARGV: id, fence, outcome, manifest or error or '', result TTL, record TTL, what the result adds to the
--       totals as a JSON object, names the manifest promises...
local id, fence, outcome = ARGV[1], ARGV[2], ARGV[3]
local status = owned(id, fence)

if not status then
  -- Said twice, because the first reply was lost on the way, is no error.
  local held, attempt = unpack(redis.call('HMGET', job(id), 'fence', 'attempt'))
  local before = held == fence and redis.call('HGET', job(id), 'attempt:' .. attempt .. ':outcome')
  if before == outcome or (before == 'cancelled' and outcome == 'succeeded') then return 'ok' end
  return 'lost'
end
if outcome == 'cancelled' and status == 'running' then return 'not_cancelling' end
if outcome == 'succeeded' and status == 'cancelling' then outcome = 'cancelled' end

if outcome == 'succeeded' then
  for i = 8, #ARGV do
    if redis.call('HEXISTS', scores(id, fence), 'n/' .. ARGV[i]) == 0 then return 'not_staged' end
  end
  redis.call('PEXPIRE', scores(id, fence), ARGV[5])
  redis.call('HSET', job(id), 'manifest', ARGV[4], 'result_until', NOW + ARGV[5])
  for total, amount in pairs(cjson.decode(ARGV[7])) do count(total, amount) end
else
  drop_scores(id)
  if outcome == 'failed' then redis.call('HSET', job(id), 'error', ARGV[4]) end
end
close_attempt(id, outcome)
finish(id, outcome, tonumber(ARGV[6]), outcome == 'failed' and cjson.decode(ARGV[4]).code)
return 'ok'
