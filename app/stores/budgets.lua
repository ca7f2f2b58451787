-- The shared ledger: app/core/book.py, line for line, run where the balances are.
--
-- One call carries all verbs of one event-loop tick of one gateway. It reads every balance it needs
-- once, carries out the verbs in order on tables in memory, and writes at the end: an error before that
-- leaves no effect, and a scope that 30 calls draw on is read and written once.
--
-- Exactness: a Lua number is a double, exact for integers up to 2^53, so one scope may hold, spend and be
-- limited to 9.0 million dollars (in nano-dollars) and no more; app.core.money.MAX_NANO is that bound and
-- the gateway refuses greater amounts. Numbers go to Redis as they are: Redis prints them with 17 digits,
-- where tostring() would keep 14.
--
-- KEYS, all with the namespace's hash tag, so that one Cluster slot has them all:
--   1 owners    zset: owner -> end of its lease (microseconds of this server's clock)
--   2..4        zsets: scope -> time of its last Reserve, one per retention (tasks, windows, totals)
--   5..         every hold, owner's set and scope that this call may touch, in any order
-- ARGV: 1 mode, 2 prefix of all keys, 3 lease in microseconds, 4 payload of the mode (msgpack), 5 seconds for which
--   an idle task is kept
--
-- Records under the prefix:
--   s:SCOPE     hash: spent held calls limit own killed_at killed_limit tokens began running terms ('' or absent for
--               none; terms: as core/terms.py has them, msgpack), kept: when its expiry was set
--   h:CALL      hash: owner scopes (msgpack) spent held risk; of a call that is remembered after its end, for a day:
--               end (expired or settled) scopes, spent: what it was charged
--   o:OWNER     set of the calls that have a hold of this owner
--   cut         zset: task that was cut -> when, until somebody has taken note of it

local mode, prefix, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local payload = ARGV[4] and ARGV[4] ~= '' and cmsgpack.unpack(ARGV[4]) or {}
local OWNERS, TASKS, WINDOWS, TOTALS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local FIRST_KEY = 5
local TASK_S, WINDOW_S, SHORT_S, RENEW_S = tonumber(ARGV[5]), 400 * 86400, 2 * 3600, 3600
local USER_S = 40 * 86400 -- a user's days and months: until they are over
local CALL_S = 86400 -- the longest call: what it holds must not be forgotten before it ends
local MAX_DEPTH, MAX_BELOW = 8, 50

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function call_key(call_id) return prefix .. 'h:' .. call_id end
local function owner_key(owner) return prefix .. 'o:' .. owner end
local function scope_key(scope) return prefix .. 's:' .. scope end

-- The index that lists a scope (nil: none), and for how many seconds an idle scope is kept (nil: for good). Tasks come
-- first: clients choose their names, and none may make itself immortal by ending in ':total'. Users are without number:
-- none is listed, and each is forgotten one day.
local function retention(scope)
  if string.sub(scope, 1, 5) == 'task:' then return TASKS, TASK_S end
  local short = string.find(scope, ':minute:%d') or string.find(scope, ':hour:%d')
  local total = string.sub(scope, -6) == ':total'
  if string.sub(scope, 1, 5) == 'user:' then
    return nil, short and SHORT_S or total and WINDOW_S or USER_S
  end
  if total then return TOTALS, nil end
  if short then return nil, SHORT_S end
  return WINDOWS, WINDOW_S
end

local function lapsed(owner)
  local till = redis.call('ZSCORE', OWNERS, owner)
  return not till or tonumber(till) <= now
end

---- Balances and holds, read once a call ---------------------------------------------------------

local declared = {}
local balances, scopes_used = {}, {}
local holds, calls_used, ended, remembered = {}, {}, {}, {}
local cut = {}

local function balance(scope)
  local b = balances[scope]
  if b then return b end
  local v = redis.call('HMGET', scope_key(scope), 'spent', 'held', 'calls', 'limit', 'own', 'killed_at', 'killed_limit',
    'kept', 'tokens', 'began', 'terms', 'running')
  b = {
    spent = tonumber(v[1]) or 0, held = tonumber(v[2]) or 0, calls = tonumber(v[3]) or 0,
    limit = tonumber(v[4]), own = tonumber(v[5]), killed_at = tonumber(v[6]), killed_limit = tonumber(v[7]),
    kept = tonumber(v[8]) or 0, tokens = tonumber(v[9]) or 0, began = tonumber(v[10]) or 0,
    terms = v[11] and v[11] ~= '' and cmsgpack.unpack(v[11]) or nil,
    running = tonumber(v[12]) or 0,
  }
  balances[scope] = b
  scopes_used[#scopes_used + 1] = scope
  return b
end

local function find_hold(call_id)
  local hold = holds[call_id]
  if hold ~= nil then return hold end
  local v = redis.call('HMGET', call_key(call_id), 'owner', 'scopes', 'spent', 'held', 'risk', 'end')
  hold = v[1] and {
    call_id = call_id, owner = v[1], scopes = cmsgpack.unpack(v[2]), stored = true,
    spent = tonumber(v[3]), held = tonumber(v[4]), risk = tonumber(v[5]),
  }
  if v[6] then
    remembered[call_id] = {
      call_id = call_id, owner = '', scopes = cmsgpack.unpack(v[2]), charged = tonumber(v[3]), settled = v[6] == 'settled',
    }
  end
  holds[call_id] = hold
  calls_used[#calls_used + 1] = call_id
  return hold
end

local function covered(hold)
  if not declared[owner_key(hold.owner)] then return false end
  for _, scope in ipairs(hold.scopes) do
    if not declared[scope_key(scope)] then return false end
  end
  return true
end

local function write_scopes(reserved)
  local recent = {[TASKS] = {}, [WINDOWS] = {}, [TOTALS] = {}}
  for order, scope in ipairs(scopes_used) do
    local b, key = balances[scope], scope_key(scope)
    local index, keep_s = retention(scope)
    if reserved[scope] and index then
      local list = recent[index]
      list[#list + 1], list[#list + 2] = now + order, scope
    end
    local renew = reserved[scope] and keep_s and now - b.kept > RENEW_S * 1000000
    if renew then b.kept = now end
    redis.call('HSET', key, 'spent', b.spent, 'held', b.held, 'calls', b.calls, 'limit', b.limit or '',
      'own', b.own or '', 'kept', b.kept, 'tokens', b.tokens, 'running', b.running)
    if b.killed_at then redis.call('HSET', key, 'killed_at', b.killed_at, 'killed_limit', b.killed_limit or '') end
    if b.changed then
      redis.call('HSET', key, 'began', b.began, 'terms', b.terms and cmsgpack.pack(b.terms) or '')
    end
    if renew then redis.call('EXPIRE', key, keep_s + RENEW_S + CALL_S) end
  end
  for index, list in pairs(recent) do
    if #list > 0 then redis.call('ZADD', index, unpack(list)) end
  end
end

local function write_cuts()
  if #cut == 0 then return end
  local key = prefix .. 'cut'
  for order, scope in ipairs(cut) do redis.call('ZADD', key, now + order, scope) end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - TASK_S * 1000000)
end

local function write_remembered()
  for call_id, past in pairs(remembered) do
    if past.changed then
      redis.call('HSET', call_key(call_id), 'end', past.settled and 'settled' or 'expired',
        'scopes', cmsgpack.pack(past.scopes), 'spent', past.charged)
      redis.call('EXPIRE', call_key(call_id), CALL_S)
    end
  end
end

local function write_holds()
  for _, hold in ipairs(ended) do
    redis.call('DEL', call_key(hold.call_id))
    redis.call('SREM', owner_key(hold.owner), hold.call_id)
  end
  local registered = {}
  for _, call_id in ipairs(calls_used) do
    local hold = holds[call_id]
    if hold and hold.stored then
      redis.call('HSET', call_key(call_id), 'spent', hold.spent, 'held', hold.held, 'risk', hold.risk)
    elseif hold then
      redis.call('HSET', call_key(call_id), 'owner', hold.owner, 'scopes', cmsgpack.pack(hold.scopes),
        'spent', hold.spent, 'held', hold.held, 'risk', hold.risk)
      redis.call('SADD', owner_key(hold.owner), call_id)
      hold.stored = true
      if not registered[hold.owner] then -- else a hold could outlive an owner that nobody has heard of
        registered[hold.owner] = true
        redis.call('ZADD', OWNERS, 'NX', now + lease, hold.owner)
      end
    end
  end
end

---- The rules, as in Book ------------------------------------------------------------------------

local function effective_limit(b)
  if not b.limit then return b.own end
  if not b.own then return b.limit end
  return math.min(b.limit, b.own)
end

-- Floor of a / b for a >= 0, b >= 1. fmod is exact; a / b is rounded and may reach the next integer.
local function share_of(a, b) return (a - math.fmod(a, b)) / b end

---- A task's terms, as in core/terms.py and core/amend.py: a table without the fields that are none --------------

local KINDS = {'calls', 'tokens', 'ms', 'parallel'}
local OPENNESS = {closed = 0, frozen = 1, open = 2}

local function tighter(one, other)
  if not one then return other end
  if not other then return one end
  return math.min(one, other)
end

local function state_of(terms) return terms and terms.state or 'open' end
local function above_of(terms) return terms and terms.above or {} end
local function below_of(terms) return terms and terms.below or {} end

-- The limit of a kind that binds, or nil.
local function bound(terms, kind)
  return terms and tighter(terms['set_' .. kind] or terms[kind], terms['own_' .. kind])
end

-- Plain terms are none at all. A table with nothing in it would be packed as a list, so the state is always there.
local function kept_terms(terms)
  if state_of(terms) == 'open' then
    terms.state = nil
    if next(terms) == nil then return nil end
    terms.state = 'open'
  end
  return terms
end

-- A claim lays down the policy's limits as it has them now, and the client's where it names any.
local function claim_on(claim)
  local scope, caps = claim[1], claim[4]
  local b = balance(scope)
  b.limit, b.own = claim[2], claim[3] or b.own
  if caps or b.terms then
    local terms = b.terms or {}
    for _, kind in ipairs(KINDS) do
      local own = 'own_' .. kind
      terms[kind], terms[own] = caps and caps[kind], caps and caps[own] or terms[own]
    end
    terms.at_entry = caps and caps.at_entry or nil
    b.terms, b.changed = kept_terms(terms), true
    b.limit = b.terms and b.terms.set_nano or b.limit
  end
  return scope
end

local function age_of(b, now_ms)
  return b.began > 0 and math.max(now_ms - b.began, 0) or 0
end

-- Why a task takes no further call, with the limit and what is used of it; nil where it does.
local function refusal(b, op)
  local state = state_of(b.terms)
  if state ~= 'open' then return state, 0, 0 end
  local limit = bound(b.terms, 'calls')
  if limit and b.calls >= limit then return 'calls', limit, b.calls end
  limit = bound(b.terms, 'tokens')
  local need = b.terms.at_entry and 1 or math.max(op.need_tokens or 0, 1)
  if limit and limit - b.tokens < need then return 'tokens', limit, b.tokens end
  limit = bound(b.terms, 'ms')
  local age = age_of(b, op.now_ms or 0)
  if limit and age >= limit then return 'time', limit, age end
  return nil
end

-- The first scope in which as many calls run as may, and that limit; nil where there is none.
local function full_of(scopes)
  for _, scope in ipairs(scopes) do
    local b = balance(scope)
    local most = bound(b.terms, 'parallel')
    if most and b.running >= most then return scope, most end
  end
  return nil
end

-- The first scope in which all holds, with the need of this verb, would be more than their share; nil where none is.
local function crowded_of(scopes, op)
  for _, scope in ipairs(scopes) do
    local b = balance(scope)
    local limit = effective_limit(b)
    if limit and b.held + op.need_nano > share_of(math.max(limit - b.spent, 0), op.held_share) then return scope end
  end
  return nil
end

local function claims_on_all(scopes, claimed)
  for _, scope in ipairs(scopes) do
    if not claimed[scope] then return false end
  end
  return true
end

---- Room -----------------------------------------------------------------------------------------

local function room_of(b)
  local limit = effective_limit(b)
  return limit and limit - b.spent - b.held
end

local function exhausted(b)
  local limit = effective_limit(b)
  return b.killed_at ~= nil and limit ~= nil and limit <= (b.killed_limit or 0)
end

local function tightest_of(scopes)
  local tightest, least = nil, nil
  for _, scope in ipairs(scopes) do
    local room = room_of(balance(scope))
    if room and (not least or room < least) then tightest, least = scope, room end
  end
  return tightest, least
end

local function any_exhausted(scopes)
  for _, scope in ipairs(scopes) do
    if exhausted(balance(scope)) then return true end
  end
  return false
end

-- True when every scope would fit the need once all holds are given back.
local function fits_without_holds(scopes, need)
  for _, scope in ipairs(scopes) do
    local b = balance(scope)
    local room = room_of(b)
    if room and room + b.held < need then return false end
  end
  return true
end

-- A verb's fields are absent where they have their defaults. Results are packed by hand, a map header (128 + fields) and its fields: a Lua table cannot hold a nil.
local function granted(hold, contended, now_ms)
  local tightest, room = tightest_of(hold.scopes)
  local tokens, ms
  for _, scope in ipairs(hold.scopes) do
    local b = balance(scope)
    if b.terms and not b.terms.at_entry then
      local max_tokens, max_ms = bound(b.terms, 'tokens'), bound(b.terms, 'ms')
      tokens = tighter(tokens, max_tokens and math.max(max_tokens - b.tokens, 0))
      ms = tighter(ms, max_ms and math.max(max_ms - age_of(b, now_ms), 0))
    end
  end
  local step = hold.scopes[1] and balance(hold.scopes[1]).calls or 0
  if not tokens and not ms then
    return '\134' .. cmsgpack.pack('type', 'granted', 'held_nano', hold.held, 'remaining_nano', room,
      'scope', tightest, 'contended', contended, 'step', step)
  end
  return '\136' .. cmsgpack.pack('type', 'granted', 'held_nano', hold.held, 'remaining_nano', room,
    'scope', tightest, 'contended', contended, 'tokens_left', tokens, 'ms_left', ms, 'step', step)
end

local function denied(scope, contended, killed, reason, limit, used)
  local b = balance(scope)
  return '\138' .. cmsgpack.pack('type', 'denied', 'scope', scope, 'limit_nano', effective_limit(b) or 0,
    'spent_nano', b.spent, 'held_nano', b.held, 'contended', contended, 'killed', killed,
    'reason', reason or 'budget', 'limit', limit or 0, 'used', used or 0)
end

local function moved(scope, above)
  return '\131' .. cmsgpack.pack('type', 'moved', 'scope', scope, 'above', above)
end

local function settled(charged, refunded, scopes, lapsed)
  local tightest, room = tightest_of(scopes)
  return '\134' .. cmsgpack.pack('type', 'settled', 'charged_nano', charged, 'refunded_nano', refunded,
    'remaining_nano', room, 'scope', tightest, 'lapsed', lapsed)
end

local function lost(call_id)
  return '\130' .. cmsgpack.pack('type', 'lost', 'call_id', call_id)
end

local function undeclared(hold)
  return '\132' .. cmsgpack.pack('type', 'undeclared', 'call_id', hold.call_id, 'owner', hold.owner, 'scopes', hold.scopes)
end

---- The verbs ------------------------------------------------------------------------------------

local verbs, reserved = {}, {}

-- The scopes of all claims in their order, and as a set; kept for as long as those of a reservation are.
local function claim_all(claims)
  local scopes, claimed = {}, {}
  for i, claim in ipairs(claims) do
    local scope = claim_on(claim)
    scopes[i], claimed[scope], reserved[scope] = scope, true, true
  end
  return scopes, claimed
end

function verbs.reserve(op)
  local hold = find_hold(op.call_id)
  local now_ms = op.now_ms or 0
  if hold then return granted(hold, false, now_ms) end
  if remembered[op.call_id] then return lost(op.call_id) end
  local scopes, claimed = claim_all(op.claims)
  for _, scope in ipairs(scopes) do
    local b = balance(scope)
    if exhausted(b) then return denied(scope, false, true) end
    if b.terms then
      local above = above_of(b.terms)
      if not claims_on_all(above, claimed) then return moved(scope, above) end
      local reason, limit, used = refusal(b, op)
      if reason then return denied(scope, false, false, reason, limit, used) end
    end
  end
  local tightest, room = tightest_of(scopes)
  if room and room < op.need_nano then
    return denied(tightest, fits_without_holds(scopes, op.need_nano), false)
  end
  if op.held_share then
    local crowded = crowded_of(scopes, op)
    if crowded then return denied(crowded, balance(crowded).held > 0, false) end
  end
  local full, most = full_of(scopes)
  if full then return denied(full, true, false, 'parallel', most, balance(full).running) end
  local held = op.want_nano
  if room then held = math.max(op.need_nano, math.min(op.want_nano, share_of(room, op.share or 1))) end
  for _, scope in ipairs(scopes) do
    local b = balance(scope)
    b.held, b.calls, b.running = b.held + held, b.calls + 1, b.running + 1
    if b.began == 0 and now_ms > 0 then b.began, b.changed = now_ms, true end
    if b.terms and b.terms.at_entry then b.tokens = b.tokens + (op.need_tokens or 0) end
  end
  hold = {call_id = op.call_id, owner = op.owner, scopes = scopes, spent = 0, held = held, risk = op.risk_nano}
  holds[op.call_id] = hold
  return granted(hold, false, now_ms)
end

function verbs.advance(op)
  local hold = find_hold(op.call_id)
  if not hold then return lost(op.call_id) end
  local delta = math.max(op.spent_nano - hold.spent, 0)
  for _, scope in ipairs(hold.scopes) do
    local b = balance(scope)
    b.spent, b.held = b.spent + delta, b.held - hold.held
  end
  hold.spent = hold.spent + delta
  local shut = any_exhausted(hold.scopes)
  local _, room = tightest_of(hold.scopes)
  local held = op.want_nano
  if shut then
    held = 0
  elseif room then
    room = math.max(room, 0)
    held = math.max(math.min(op.want_nano, share_of(room, op.share or 1)), math.min(op.need_nano, room))
  end
  if op.strict then held = math.max(held, hold.held - delta) end
  hold.held, hold.risk = held, op.risk_nano
  for _, scope in ipairs(hold.scopes) do
    local b = balance(scope)
    b.held = b.held + held
  end
  return granted(hold, held < op.need_nano and not shut and fits_without_holds(hold.scopes, op.need_nano), 0)
end

local function kill(killed_scopes, scopes)
  local killed = {}
  for _, scope in ipairs(killed_scopes) do killed[scope] = true end
  for _, scope in ipairs(scopes) do
    if killed[scope] then
      local b = balance(scope)
      b.killed_at, b.killed_limit = b.killed_at or b.spent, effective_limit(b)
      cut[#cut + 1] = scope
    end
  end
end

local function remember(call_id, scopes, charged, is_settled)
  remembered[call_id] =
    {call_id = call_id, owner = '', scopes = scopes, charged = charged, settled = is_settled, changed = true}
end

local function end_hold(hold, cost, tokens, begun_tokens)
  for _, scope in ipairs(hold.scopes) do
    local b = balance(scope)
    b.spent, b.held, b.tokens = b.spent + cost - hold.spent, b.held - hold.held, b.tokens + tokens
    b.running = math.max(b.running - 1, 0)
    if b.terms and b.terms.at_entry then b.tokens = math.max(b.tokens - begun_tokens, 0) end
  end
  holds[hold.call_id] = false
  if hold.stored then ended[#ended + 1] = hold end
end

-- A call without a hold: one that expired is charged right, one that never had any is charged.
local function settle_late(op)
  local past = remembered[op.call_id]
  local lapsed = past ~= nil and not past.settled
  if not past then
    if not op.claims then return lost(op.call_id) end
    local scopes, claimed = claim_all(op.claims)
    for _, scope in ipairs(scopes) do
      local above = above_of(balance(scope).terms)
      if not claims_on_all(above, claimed) then return moved(scope, above) end
    end
    for _, scope in ipairs(scopes) do
      local b = balance(scope)
      b.calls = b.calls + 1
      if b.began == 0 and op.now_ms then b.began, b.changed = op.now_ms, true end
    end
    past = {scopes = scopes, charged = 0, settled = false}
  end
  if past.settled then return settled(past.charged, 0, past.scopes, false) end
  for _, scope in ipairs(past.scopes) do
    local b = balance(scope)
    b.spent, b.tokens = b.spent + op.cost_nano - past.charged, b.tokens + (op.tokens or 0)
    if lapsed and b.terms and b.terms.at_entry then b.tokens = math.max(b.tokens - (op.begun_tokens or 0), 0) end
  end
  kill(op.killed_scopes or {}, past.scopes)
  remember(op.call_id, past.scopes, op.cost_nano, true)
  return settled(op.cost_nano, math.max(past.charged - op.cost_nano, 0), past.scopes, lapsed)
end

function verbs.settle(op)
  local hold = find_hold(op.call_id)
  if not hold then return settle_late(op) end
  end_hold(hold, op.cost_nano, op.tokens or 0, op.begun_tokens or 0)
  kill(op.killed_scopes or {}, hold.scopes)
  if op.claims then remember(op.call_id, hold.scopes, op.cost_nano, true) end
  return settled(op.cost_nano, math.max(hold.spent + hold.held - op.cost_nano, 0), hold.scopes, false)
end

-- Only for an owner whose lease has run out by this server's clock at this moment, or that asks itself: whoever asks,
-- and however many ask at once, a hold is ended once and another living owner's never.
function verbs.expire(op)
  local hold = find_hold(op.call_id)
  if not hold then
    redis.call('SREM', owner_key(op.owner), op.call_id)
    return lost(op.call_id)
  end
  if hold.owner ~= op.owner or not (op.own or lapsed(hold.owner)) then return lost(op.call_id) end
  local charge = hold.spent + math.min(hold.held, hold.risk)
  end_hold(hold, charge, 0, 0)
  remember(op.call_id, hold.scopes, charge, false)
  return '\133' .. cmsgpack.pack('type', 'expired', 'call_id', op.call_id, 'owner', hold.owner,
    'scopes', hold.scopes, 'charged_nano', charge)
end

local function why_not(op, b, parent)
  if op.by_client then
    local now = {nano = effective_limit(b)}
    for _, kind in ipairs(KINDS) do now[kind] = bound(b.terms, kind) end
    for kind, limit in pairs(now) do
      if op['max_' .. kind] and op['max_' .. kind] > limit then return 'raises' end
    end
    if op.state and OPENNESS[op.state] > OPENNESS[state_of(b.terms)] then return 'reopens' end
  end
  local above = above_of(b.terms)
  if not parent or above[1] == op.parent then return nil end
  local higher = above_of(parent.terms)
  local cycle = op.scope == op.parent
  for _, scope in ipairs(higher) do cycle = cycle or scope == op.scope end
  if cycle then return 'cycle' end
  if #above > 0 then return 'has_parent' end
  if #below_of(b.terms) > 0 then return 'has_children' end
  return #higher + 2 > MAX_DEPTH and 'depth' or nil
end

local function hang_below(op, terms, parent)
  terms.above = {op.parent}
  for i, scope in ipairs(above_of(parent.terms)) do terms.above[i + 1] = scope end
  local below = below_of(parent.terms)
  for _, scope in ipairs(below) do
    if scope == op.scope then return end
  end
  if #below < MAX_BELOW then
    below[#below + 1] = op.scope
    parent.terms = parent.terms or {}
    parent.terms.below = below
    parent.terms, parent.changed = kept_terms(parent.terms), true
  end
end

function verbs.amend(op)
  if op.caps then claim_on({op.scope, op.policy_nano, nil, op.caps}) end
  local b, parent = balance(op.scope), op.parent and balance(op.parent)
  reserved[op.scope] = true
  if op.parent then reserved[op.parent] = true end
  local refused = why_not(op, b, parent)
  if not refused then
    local terms = b.terms or {}
    for _, kind in ipairs(KINDS) do
      local limit = op['max_' .. kind]
      if limit and op.by_client then
        terms['own_' .. kind] = limit
      elseif limit then
        terms['set_' .. kind], terms['own_' .. kind] = limit, nil
      end
    end
    if op.max_nano and op.by_client then
      b.own = op.max_nano
    elseif op.max_nano then
      b.limit, b.own, terms.set_nano = op.max_nano, nil, op.max_nano
    end
    terms.state = op.state or terms.state
    if parent and #above_of(terms) == 0 then hang_below(op, terms, parent) end
    b.terms, b.changed = kept_terms(terms), true
  end
  return '\132' .. cmsgpack.pack('type', 'amended', 'scope', op.scope, 'refused', refused, 'above', above_of(b.terms))
end

---- The modes ------------------------------------------------------------------------------------

local modes = {}

local function packed_list(items)
  return string.char(220, math.floor(#items / 256), #items % 256) .. table.concat(items)
end

-- All verbs of a tick, in order -> their results, in order. On a Cluster a script may touch only what KEYS names;
-- a gateway knows that of the holds it made. If another's are meant, nothing is done and the answer says what
-- they touch; the gateway then asks again.
function modes.apply()
  for i = FIRST_KEY, #KEYS do declared[KEYS[i]] = true end
  local missing, results = {}, {}
  for _, op in ipairs(payload) do
    local hold = find_hold(op.call_id) or remembered[op.call_id]
    if hold and not covered(hold) then missing[#missing + 1] = undeclared(hold) end
  end
  if #missing > 0 then return packed_list(missing) end
  for i, op in ipairs(payload) do results[i] = verbs[op.type](op) end
  write_holds()
  write_remembered()
  write_cuts()
  write_scopes(reserved)
  return packed_list(results)
end

-- The fields of the scopes in KEYS from the fifth on; an empty record for one never used.
function modes.read()
  local found = {}
  for i = FIRST_KEY, #KEYS do
    found[#found + 1] = redis.call('HMGET', KEYS[i], 'spent', 'held', 'calls', 'limit', 'own', 'killed_at',
      'killed_limit', 'tokens', 'began', 'running', 'terms')
  end
  return found
end

-- A page of one index, the most recently used first: scope, time, scope, time ...
function modes.recent()
  return redis.call('ZREVRANGE', KEYS[payload.index], payload.start, payload.stop, 'WITHSCORES')
end

-- The tasks that were cut, the earliest first: scope, time, scope, time ...
function modes.cut()
  return redis.call('ZRANGE', KEYS[FIRST_KEY], 0, payload.most - 1, 'WITHSCORES')
end

-- Forgets those, unless they were cut again since.
function modes.noted()
  for _, one in ipairs(payload.cuts) do
    local at = redis.call('ZSCORE', KEYS[FIRST_KEY], one[1])
    if at and tonumber(at) == one[2] then redis.call('ZREM', KEYS[FIRST_KEY], one[1]) end
  end
  return 0
end

-- Renews the lease of an owner, forgets idle scopes -> whether the lease had run out, and whose else has.
function modes.beat()
  local till = redis.call('ZSCORE', OWNERS, payload.owner)
  redis.call('ZADD', OWNERS, now + lease, payload.owner)
  redis.call('ZREMRANGEBYSCORE', TASKS, '-inf', now - TASK_S * 1000000)
  redis.call('ZREMRANGEBYSCORE', WINDOWS, '-inf', now - WINDOW_S * 1000000)
  local came_back = till and tonumber(till) <= now
  return {came_back and 1 or 0, redis.call('ZRANGEBYSCORE', OWNERS, '-inf', now, 'LIMIT', 0, payload.most)}
end

-- The calls that the owner whose set is the fifth key has a hold for.
function modes.held()
  return redis.call('SMEMBERS', KEYS[FIRST_KEY])
end

-- For each owner (its set in KEYS from the fifth on): some calls whose holds are to be expired. An owner that
-- is dead and has none left is forgotten.
function modes.lapsed()
  local abandoned = {}
  for i, owner in ipairs(payload.owners) do
    abandoned[i] = {}
    if lapsed(owner) then
      abandoned[i] = redis.call('SRANDMEMBER', KEYS[FIRST_KEY + i - 1], payload.most)
      if #abandoned[i] == 0 then redis.call('ZREM', OWNERS, owner) end
    end
  end
  return abandoned
end

-- Gives up the lease of the owner whose set is the fifth key: holds it leaves are expired by the next beat.
function modes.leave()
  if redis.call('SCARD', KEYS[FIRST_KEY]) == 0 then
    return redis.call('ZREM', OWNERS, payload.owner)
  end
  return redis.call('ZADD', OWNERS, now, payload.owner)
end

return modes[mode]()
