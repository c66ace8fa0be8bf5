#!lua flags=allow-oom
-- The owner ends its attempt: succeeded with a manifest, failed with an error, cancelled, or handed back.
-- ARGV: id, attempt, fence, outcome, manifest or error or '', result TTL, record TTL, what the result adds to the
--       totals as a JSON object, names the manifest promises...
local id, fence, outcome, record_ttl = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[7])
local record = load(id)

if not record or record.fence ~= fence or (record.status ~= 'running' and record.status ~= 'cancelling') then
  -- Said twice, because the first reply was lost on the way, is no error.
  local before = redis.call('HGET', job(id), 'attempt:' .. ARGV[2] .. ':outcome')
  if before == outcome or (before == 'cancelled' and outcome ~= 'failed') then return 'ok' end
  return 'lost'
end
if outcome == 'cancelled' and record.status == 'running' then return 'not_cancelling' end
if outcome ~= 'failed' and record.status == 'cancelling' then outcome = 'cancelled' end

if outcome == 'succeeded' then
  for i = 9, #ARGV do
    if redis.call('HEXISTS', scores(id, fence), 'n/' .. ARGV[i]) == 0 then return 'not_staged' end
  end
  redis.call('PEXPIRE', scores(id, fence), ARGV[6])
  change(record, 'manifest', ARGV[5])
  change(record, 'result_until', NOW + ARGV[6])
  for total, amount in pairs(cjson.decode(ARGV[8])) do count(total, amount) end
else
  drop_scores(record)
end
close_attempt(record, outcome)
if outcome == 'handed_back' then
  tell(record, 'handed_back')
  count('handed_back', 1)
  next_attempt(record, NOW)
elseif outcome == 'failed' then
  change(record, 'error', ARGV[5])
  finish(record, 'failed', record_ttl, cjson.decode(ARGV[5]).code)
else
  finish(record, outcome, record_ttl)
end
save(record)
return 'ok'
