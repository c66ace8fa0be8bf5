#!lua flags=allow-oom
-- Whoever started a worker's process saw it die: its lease ends now, and the next pass of the reconciler takes it away.
-- ARGV: id, attempt, worker
local record = load(ARGV[1])
if not record or record.attempt ~= ARGV[2] or (record.status ~= 'running' and record.status ~= 'cancelling') then
  return
end
if redis.call('HGET', job(record.id), 'attempt:' .. ARGV[2] .. ':worker') == ARGV[3] then
  redis.call('ZADD', RUNNING, NOW, record.id)
end
