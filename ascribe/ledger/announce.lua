#!lua flags=allow-oom
-- ARGV: gradient fingerprint, rows, TTL
redis.call('SET', P .. 'gradients:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
return 'ok'
