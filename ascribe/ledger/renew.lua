#!lua flags=allow-oom
-- Extend the lease and, when given, record progress. Returns the state, or 'lost'.
-- ARGV: id, fence, lease, progress or ''
local id, progress = ARGV[1], ARGV[4]
local status = owned(id, ARGV[2])
if not status then return 'lost' end

redis.call('ZADD', RUNNING, NOW + ARGV[3], id)
if progress ~= '' then
  local record, phase = load(id), cjson.decode(progress).phase
  if phase ~= redis.call('HGET', job(id), 'phase') then tell(record, 'phase', phase) end
  change(record, 'phase', phase)
  change(record, 'progress', progress)
  change(record, 'progress_at', NOW)
  save(record)
end
return status
