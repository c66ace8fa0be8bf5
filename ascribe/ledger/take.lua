#!lua flags=allow-oom
-- The next part that is open, or whose lease ran out: {fence, name, token}, or why not, or nothing.
-- ARGV: id, environment, lease, how often a part is taken by others than the owner, the owner's fence or ''
local id, most, owner = ARGV[1], tonumber(ARGV[4]), ARGV[5]
local status, fence = unpack(redis.call('HMGET', job(id), 'status', 'fence'))
if owner ~= '' and not owned(id, owner) then return 'lost' end
local environment = redis.call('HGET', work(id), 'environment')
if status ~= 'running' or not environment then return false end
if environment ~= ARGV[2] then return 'environment' end

local function take(name, takes)
  local token = redis.call('HINCRBY', work(id), 'token', 1)
  redis.call('HSET', work(id), 'takes/' .. name, takes + 1, 'token/' .. name, token)
  redis.call('ZADD', parts(id), NOW + ARGV[3], name)
  return { fence, name, token }
end

local function takes(name) return tonumber(redis.call('HGET', work(id), 'takes/' .. name) or 0) end

local name = due(parts(id), 1)[1]
while name do
  local before = takes(name)
  if owner ~= '' or before < most then return take(name, before) end
  redis.call('ZADD', parts(id), 'inf', name)
  name = due(parts(id), 1)[1]
end
name = owner ~= '' and redis.call('ZRANGEBYSCORE', parts(id), 'inf', 'inf', 'LIMIT', 0, 1)[1]
return name and take(name, takes(name))
