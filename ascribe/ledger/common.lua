-- Shared by every script: put in front of it when it is loaded (redis_client.py).
--
-- Key layout. KEYS[1] is the tenant's prefix `{ascribe:<tenant>}:<layout>:`. It starts every key, and its braces put
-- them all in one slot of a cluster, so that a script may touch any of them.
--
--   job:<id>              hash: the record
--       id view                              what was asked, without inline rows
--       base adapter labels solver query_of  copies of it for lists and totals
--       revision events                      changes of the record; events so far
--       status attempt fence rings           rings: messages sent for the present attempt
--       created_at started_at finished_at
--       attempt:<n>:worker|started_at|ended_at|outcome
--       phase progress progress_at error manifest result_until idempotency
--   spec:<id>             string: the spec with its inline rows, which only a claim reads as a rule
--   events:<id>           stream, ids <number>-0: type at attempt detail; the latest 256
--   state:<status>        zset id -> since when it is in this state
--   totals                hash: counts since the ledger began; the names are made in totals.py
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

local function spec(id) return P .. 'spec:' .. id end

local function events(id) return P .. 'events:' .. id end

local function state(status) return P .. 'state:' .. status end

local function scores(id, fence) return P .. 'scores:' .. id .. ':' .. fence end

-- The state of a job that this fence still owns; nothing when the lease was lost.
local function owned(id, fence)
  local status, held = unpack(redis.call('HMGET', job(id), 'status', 'fence'))
  if held == fence and (status == 'running' or status == 'cancelling') then return status end
end

local function count(total, amount) redis.call('HINCRBYFLOAT', P .. 'totals', total, amount) end

local function tell(id, kind, detail)
  local number = redis.call('HINCRBY', job(id), 'events', 1)
  redis.call('XADD', events(id), 'MAXLEN', 256, number .. '-0', 'type', kind, 'at', NOW,
    'attempt', redis.call('HGET', job(id), 'attempt'), 'detail', detail or '')
end

local function enter(id, status)
  local before = redis.call('HGET', job(id), 'status')
  if before then redis.call('ZREM', state(before), id) end
  redis.call('ZADD', state(status), NOW, id)
  redis.call('HSET', job(id), 'status', status)
  redis.call('HINCRBY', job(id), 'revision', 1)
end

local function close_attempt(id, outcome)
  local attempt = 'attempt:' .. redis.call('HGET', job(id), 'attempt')
  redis.call('HSET', job(id), attempt .. ':ended_at', NOW, attempt .. ':outcome', outcome)
end

local function drop_scores(id)
  redis.call('UNLINK', scores(id, redis.call('HGET', job(id), 'fence')))
end

-- The one way into a terminal state: from here on the record only expires. detail: of the last event.
local function finish(id, status, record_ttl, detail)
  enter(id, status)
  tell(id, status, detail)
  count('finished/' .. redis.call('HGET', job(id), 'solver') .. '/' .. status, 1)
  redis.call('HSET', job(id), 'finished_at', NOW)
  redis.call('ZREM', QUEUED, id)
  redis.call('ZREM', RUNNING, id)
  redis.call('ZADD', ENDED, NOW + record_ttl, id)
  for _, key in ipairs({ job(id), spec(id), events(id) }) do redis.call('PEXPIRE', key, record_ttl) end
end

-- Take an ended job's id out of every index.
local function forget(id)
  for _, key in ipairs({ JOBS, ENDED, state('succeeded'), state('failed'), state('cancelled') }) do
    redis.call('ZREM', key, id)
  end
end

