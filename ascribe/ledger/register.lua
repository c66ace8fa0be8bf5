#!lua flags=allow-oom
-- ARGV: worker, WorkerInfo JSON, TTL
redis.call('HSET', P .. 'workers', ARGV[1], string.format('%.0f %s', NOW + ARGV[3], ARGV[2]))
return 'ok'
