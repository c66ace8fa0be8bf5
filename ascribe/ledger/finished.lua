#!lua flags=no-writes
-- Name and worker of each finished part, in order, those after the first `after`.
-- ARGV: id, fence, after
if not owned(ARGV[1], ARGV[2]) then return 'lost' end
return redis.call('LRANGE', finished(ARGV[1]), 2 * ARGV[3], -1)
