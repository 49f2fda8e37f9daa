-- Takes or keeps the lease of refills. A lease that never ends was not made here.
--
-- KEYS: the lease
-- ARGV: token, how long to keep it (ms)
-- Returns 1 if the caller has the lease.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and redis.call('PTTL', KEYS[1]) > 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
