-- Appends rules to the log, all of them or none. Nothing is written before the
-- first XADD, so that an error leaves everything as it was.
--
-- KEYS: the log, its head, the lease of refills
-- ARGV: token of the lease ('' if the rules are new), how long to keep the lease (ms),
--       a new epoch, the clock of the caller (us), '1' to accept what the log has lost,
--       and for each rule: at (ns, '' means now), until (s, 'default', or '' means for
--       ever), the latest possible at (us, or ''), the rule, the nonce
-- Returns 'lease' if the lease is not the caller's, 'late' if a rule would come after
-- its latest moment, or 'ok', the id of the last rule, and its fields.
local log, head, lease = KEYS[1], KEYS[2], KEYS[3]
local token, epoch, caller, accept = ARGV[1], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'

local function text(number) return string.format('%.0f', number) end

local function field(entry, name)
	for i = 1, #entry[2], 2 do
		if entry[2][i] == name then return entry[2][i + 1] end
	end
end

-- millis returns the first part of an id, which is the number of a rule.
local function millis(id) return tonumber(string.match(id, '^%d+')) end

-- micros returns a time in nanoseconds, rounded up to a microsecond.
local function micros(ns)
	local us = tonumber(string.sub(ns, 1, -4)) or 0
	if string.sub(ns, -3) ~= '000' then us = us + 1 end
	return us
end

if token ~= '' and redis.call('GET', lease) ~= token then return {'lease'} end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local known = redis.call('HMGET', head, 'epoch', 'seq', 'at', 'count', 'sweep')
local seq, last, count = tonumber(known[2]), tonumber(known[3]), tonumber(known[4])
local whole = known[1] and seq and last and count
seq, last = seq or 0, last or 0
local sweep = known[5] or '-'
if not string.find(sweep, '^%d+$') then sweep = '-' end

-- The log may have been changed by others, and the head may be gone.
local length = 0
local info = redis.pcall('XINFO', 'STREAM', log)
if info.err then
	if not string.find(info.err, 'no such key', 1, true) then return info end
else
	for i = 1, #info, 2 do
		if info[i] == 'length' then length = info[i + 1] end
		if info[i] == 'last-generated-id' then seq = math.max(seq, millis(info[i + 1])) end
	end
end
if seq > 9000000000000000 then
	return redis.error_reply('KOREAUTH the log has an entry with a huge id')
end
local newest = {}
if length > 0 then newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 16) end
for _, entry in ipairs(newest) do
	last = math.max(last, micros(field(entry, 'at') or ''))
	-- A client that got no answer sends the same rule again.
	if token == '' and field(entry, 'nonce') == ARGV[10] then
		return {'ok', entry[1], entry[2]}
	end
end
if not whole then
	count = length
elseif accept and length < count then
	count = length
else
	epoch = known[1]
end

local id, fields
for i = 6, #ARGV, 5 do
	local at, ends, latest = ARGV[i], ARGV[i + 1], ARGV[i + 2]
	local stamp, base
	if at == '' then
		stamp = math.max(now, last + 1)
		base = stamp
		-- A clock that was set back must not date moments into the future.
		if stamp - now > 1000000 then base = now end
		if latest ~= '' and base > tonumber(latest) then return {'late'} end
		at = text(stamp) .. '000'
	else
		stamp = micros(at)
	end
	last = math.max(last, stamp)
	if ends == 'default' then ends = text(math.floor(last / 1000000) + 733 * 86400) end
	fields = {'rule', ARGV[i + 3], 'at', at, 'until', ends, 'nonce', ARGV[i + 4]}
	if base and base ~= stamp then
		fields[9], fields[10] = 'now', text(base) .. '000'
	end
	seq = seq + 1
	id = text(seq) .. '-0'
	redis.call('XADD', log, id, unpack(fields))
	count = count + 1
end

-- Delete rules that have ended, a few with each call, but none of the newest: a
-- follower finds its place by the last rule that it has seen.
local window, examined, deleted = 16, 0, 0
local deadline = math.floor(math.min(now, caller) / 1000000) - 300
while examined < 1000 and token == '' do
	local entries = redis.call('XRANGE', log, sweep, '+', 'COUNT', window)
	local dead, reached = {}, #entries < window
	for _, entry in ipairs(entries) do
		if millis(entry[1]) > seq - 100 then
			reached = true
			break
		end
		sweep = text(millis(entry[1]) + 1)
		local ends = tonumber(field(entry, 'until') or '')
		if ends and ends < deadline and field(entry, 'nonce') then dead[#dead + 1] = entry[1] end
	end
	if #dead > 0 then deleted = deleted + redis.call('XDEL', log, unpack(dead)) end
	examined = examined + window
	if reached then
		sweep = '-'
		break
	end
	if #dead < window then break end
	window = 100
end

redis.call('HSET', head, 'epoch', epoch, 'seq', text(seq), 'at', text(last),
	'count', text(count - deleted), 'sweep', sweep)
if token ~= '' then redis.call('PEXPIRE', lease, ARGV[2]) end
return {'ok', id or '', fields or {}}
