-- Returns what the replicas that have reported lately have applied.
--
-- KEYS: replicas by the time of their last report (ms), what they have applied
-- ARGV: how long they are remembered (ms)
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local applied = {}
for i, replica in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now - tonumber(ARGV[1]), '+inf')) do
	applied[i] = redis.call('HGET', KEYS[2], replica) or ''
end
return applied
