#!lua flags=allow-oom
-- WorkerInfo JSON of every live worker; the others are forgotten.
local live, entries = {}, redis.call('HGETALL', P .. 'workers')
for i = 1, #entries, 2 do
  local till, info = string.match(entries[i + 1], '^(%d+) (.*)$')
  if tonumber(till) > NOW then
    table.insert(live, info)
  else
    redis.call('HDEL', P .. 'workers', entries[i])
  end
end
return live
