-- Shared by every script: put in front of it when it is loaded (redis_client.py).
--
-- Key layout. KEYS[1] is the tenant's prefix `{ascribe:<tenant>}:`. It starts every key, and its braces put them all
-- in one slot of a cluster, so that a script may touch any of them.
--
--   job:<id>              hash: the record
--       id spec base adapter labels          what was asked; the last three are copies for the filter of a list
--       status attempt fence rings           rings: messages sent for the present attempt
--       created_at started_at finished_at
--       attempt:<n>:worker|started_at|ended_at|outcome
--       progress progress_at error manifest result_until idempotency
--   jobs                  zset of ids, all scores 0: ids sort by time
--   queued                zset id -> when its next ring is due; what is due now is the outbox
--   running               zset id -> when the lease of its running or cancelling attempt ends
--   ended                 zset id -> when its record expires
--   scores:<id>:<fence>   hash: n/<name> = number of chunks, <i>/<name> = chunk i; one hash, so one TTL and one UNLINK
--   idempotency:<sha256>  string: <id> <fingerprint>
--   workers               hash worker -> <until> <WorkerInfo JSON>
--   gradients:<sha256>    string: rows
--
-- Times are milliseconds of the server's clock, which stands still while a script runs.
local P = KEYS[1]
local QUEUED, RUNNING, ENDED, JOBS = P .. 'queued', P .. 'running', P .. 'ended', P .. 'jobs'
local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)

local function job(id) return P .. 'job:' .. id end

local function scores(id, fence) return P .. 'scores:' .. id .. ':' .. fence end

-- The state of a job that this fence still owns; nothing when the lease was lost.
local function owned(id, fence)
  local status, held = unpack(redis.call('HMGET', job(id), 'status', 'fence'))
  if held == fence and (status == 'running' or status == 'cancelling') then return status end
end

local function close_attempt(id, outcome)
  local attempt = 'attempt:' .. redis.call('HGET', job(id), 'attempt')
  redis.call('HSET', job(id), attempt .. ':ended_at', NOW, attempt .. ':outcome', outcome)
end

local function drop_scores(id)
  redis.call('UNLINK', scores(id, redis.call('HGET', job(id), 'fence')))
end

-- The one way into a terminal state: from here on the record only expires.
local function finish(id, status, record_ttl)
  redis.call('HSET', job(id), 'status', status, 'finished_at', NOW)
  redis.call('ZREM', QUEUED, id)
  redis.call('ZREM', RUNNING, id)
  redis.call('ZADD', ENDED, NOW + record_ttl, id)
  redis.call('PEXPIRE', job(id), record_ttl)
end

