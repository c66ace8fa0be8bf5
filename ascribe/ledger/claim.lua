#!lua
-- queued at this attempt -> running under the next fence. Refused when memory is full: the job waits.
-- ARGV: id, attempt, worker, lease, model that the worker has loaded or ''
local record, worker, warm = load(ARGV[1]), ARGV[3], ARGV[5]
if not record or record.status ~= 'queued' or record.attempt ~= ARGV[2] then return false end

if warm ~= '' and warm ~= record.model and not redis.call('HGET', job(record.id), 'passed') then
  local other = due(waiting(record.queue, record.priority, warm), 1)[1]
  if other then
    redis.call('HSET', job(record.id), 'passed', 1)
    redis.call('ZADD', QUEUED, NOW, record.id)
    record = load(other)
  end
end

dequeue(record)
enter(record, 'running')
redis.call('ZADD', RUNNING, NOW + ARGV[4], record.id)
tell(record, 'started')
local attempt = 'attempt:' .. record.attempt
change(record, 'fence', record.fence + 1)
change(record, 'started_at', NOW)
change(record, attempt .. ':started_at', NOW)
change(record, attempt .. ':worker', worker)
save(record)
return { record.id, tonumber(record.attempt), record.fence, redis.call('GET', spec(record.id)) }
