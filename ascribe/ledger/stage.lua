#!lua flags=allow-oom
-- Put chunk `index` of a vector beside the job. The chunk last put sets the count, so staging again starts over.
-- ARGV: id, fence, name, index, chunk, TTL (a net: commit sets the real one, every other end drops the hash)
local id, name, index = ARGV[1], ARGV[3], ARGV[4]
if not owned(id, ARGV[2]) then return 'lost' end

local key = scores(id, ARGV[2])
redis.call('HSET', key, index .. '/' .. name, ARGV[5], 'n/' .. name, index + 1)
redis.call('PEXPIRE', key, ARGV[6])
return 'ok'
