-- Shared by every script: put in front of it when it is loaded (redis_client.py).
--
-- Key layout. KEYS[1] is the tenant's prefix `{ascribe:<tenant>}:<layout>:`. It starts every key, and its braces put
-- them all in one slot of a cluster, so that a script may touch any of them.
--
--   job:<id>              hash: the record
--       id view                              what was asked, without inline rows
--       base adapter labels query_of         copies of it for lists
--       solver queue priority model          copies of it for the steps below; model as of model_key() in values.py
--       retry_of                             id of the job that this one asks again, or ''
--       revision events                      changes of the record; events so far
--       status attempt fence rings           rings: messages sent for the present attempt
--       lost passed                          leases lost; whether a claim took another job in its place
--       created_at started_at finished_at
--       attempt:<n>:worker|started_at|ended_at|outcome
--       phase progress progress_at error manifest result_until idempotency
--   spec:<id>             string: the spec with its inline rows, which only a claim reads as a rule
--   events:<id>           stream, ids <number>-0: type at attempt detail; the latest 256
--   state:<status>:<queue>                 zset id -> since when it is in this state
--   waiting:<queue>:<priority>:<model>     zset id of a queued job -> from when on it may be claimed
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
-- Shared work of a running job; all of it goes when the attempt ends.
--   parts:<id>            zset name of an unfinished part -> its place among those offered while it is open, when its
--                         lease ends while it is taken, inf when it was taken too often and only the owner may
--   work:<id>             hash: environment, token (the latest), calls (made so far), and of parts
--                         takes/<name>, token/<name> while unfinished, done/<name> = the token that finished it
--   finished:<id>         list in order of finishing: name, worker, name, worker...
--   calls                 zset id -> when helpers are called next
--
-- Times are milliseconds of the server's clock, which stands still while a script runs.
local P = KEYS[1]
local QUEUED, RUNNING, ENDED, JOBS, CALLS = P .. 'queued', P .. 'running', P .. 'ended', P .. 'jobs', P .. 'calls'
local QUEUES = { 'cpu', 'gpu' } -- as in spec.py
local TIME = redis.call('TIME')
local NOW = TIME[1] * 1000 + math.floor(TIME[2] / 1000)

local function job(id) return P .. 'job:' .. id end

local function spec(id) return P .. 'spec:' .. id end

local function events(id) return P .. 'events:' .. id end

local function state(status, queue) return P .. 'state:' .. status .. ':' .. queue end

local function waiting(queue, priority, model) return P .. 'waiting:' .. queue .. ':' .. priority .. ':' .. model end

local function scores(id, fence) return P .. 'scores:' .. id .. ':' .. fence end

local function parts(id) return P .. 'parts:' .. id end

local function work(id) return P .. 'work:' .. id end

local function finished(id) return P .. 'finished:' .. id end

-- The first `limit` members of a zset whose time has come.
local function due(key, limit) return redis.call('ZRANGEBYSCORE', key, '-inf', NOW, 'LIMIT', 0, limit) end

-- The state of a job that this fence still owns; nothing when the lease was lost.
local function owned(id, fence)
  local status, held = unpack(redis.call('HMGET', job(id), 'status', 'fence'))
  if held == fence and (status == 'running' or status == 'cancelling') then return status end
end

local function count(total, amount) redis.call('HINCRBYFLOAT', P .. 'totals', total, amount) end

-- A step reads a record once, changes it by the functions below, and saves it once. --------------------------------

local function load(id)
  local record = { id = id, changes = {} }
  record.status, record.attempt, record.fence, record.revision, record.events, record.solver, record.queue,
    record.priority, record.model = unpack(redis.call('HMGET', job(id), 'status', 'attempt', 'fence', 'revision',
      'events', 'solver', 'queue', 'priority', 'model'))
  return record.status and record
end

local function change(record, name, value)
  record[name] = value
  record.changes[name] = value
end

local function save(record)
  change(record, 'revision', record.revision + 1)
  local flat, n = {}, 0
  for name, value in pairs(record.changes) do
    flat[n + 1], flat[n + 2], n = name, value, n + 2
  end
  redis.call('HSET', job(record.id), unpack(flat, 1, n))
end

local function tell(record, kind, detail)
  change(record, 'events', record.events + 1)
  redis.call('XADD', events(record.id), 'MAXLEN', 256, record.events .. '-0', 'type', kind, 'at', NOW,
    'attempt', record.attempt, 'detail', detail or '')
end

local function enter(record, status)
  if record.status then redis.call('ZREM', state(record.status, record.queue), record.id) end
  redis.call('ZADD', state(status, record.queue), NOW, record.id)
  change(record, 'status', status)
end

-- Queued, to be rung and claimed from `at` on.
local function enqueue(record, at)
  enter(record, 'queued')
  redis.call('ZADD', QUEUED, at, record.id)
  redis.call('ZADD', waiting(record.queue, record.priority, record.model), at, record.id)
end

local function dequeue(record)
  redis.call('ZREM', QUEUED, record.id)
  redis.call('ZREM', waiting(record.queue, record.priority, record.model), record.id)
end

local function close_attempt(record, outcome)
  local attempt = 'attempt:' .. record.attempt
  change(record, attempt .. ':ended_at', NOW)
  change(record, attempt .. ':outcome', outcome)
  redis.call('ZREM', RUNNING, record.id)
  if redis.call('UNLINK', parts(record.id), work(record.id), finished(record.id)) > 0 then
    redis.call('ZREM', CALLS, record.id)
  end
end

local function drop_scores(record) redis.call('UNLINK', scores(record.id, record.fence)) end

-- The next attempt, from `at` on.
local function next_attempt(record, at)
  change(record, 'attempt', record.attempt + 1)
  change(record, 'rings', 0)
  redis.call('HDEL', job(record.id), 'phase', 'progress', 'progress_at')
  enqueue(record, at)
  tell(record, 'requeued')
end

-- The one way into a terminal state: from here on the record only expires. detail: of the last event.
local function finish(record, status, record_ttl, detail)
  enter(record, status)
  tell(record, status, detail)
  count('finished/' .. record.solver .. '/' .. status, 1)
  change(record, 'finished_at', NOW)
  redis.call('ZADD', ENDED, NOW + record_ttl, record.id)
  for _, key in ipairs({ job(record.id), spec(record.id), events(record.id) }) do
    redis.call('PEXPIRE', key, record_ttl)
  end
end

-- Take an ended job's id out of every index.
local function forget(id)
  redis.call('ZREM', JOBS, id)
  redis.call('ZREM', ENDED, id)
  for _, queue in ipairs(QUEUES) do
    for _, status in ipairs({ 'succeeded', 'failed', 'cancelled' }) do redis.call('ZREM', state(status, queue), id) end
  end
end

