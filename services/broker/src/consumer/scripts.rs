//! What Redis does in one step of its own. `allow-oom`: it must go on in a full Redis too,
//! since it is what empties it.

/// Deletes entries and counts out the events of those that were still there. Takes the
/// group, then each entry's id and its events.
pub(crate) const ACKNOWLEDGE: &str = r"#!lua flags=allow-oom
local deleted, events = 0, 0
for i = 2, #ARGV, 2 do
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
    if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
        deleted = deleted + 1
        events = events + ARGV[i + 1]
    end
end
if events > 0 then redis.call('INCRBY', KEYS[2], events) end
return deleted";

/// From the first entry on: those that came before the group are to be delivered too.
pub(crate) const CREATE_GROUP: &str = r"#!lua flags=allow-oom
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
return redis.status_reply('OK')";

/// Removes the consumers that are idle for longer than so many milliseconds, each only if
/// nothing is pending for it: to remove one that has would hide its entries for ever.
pub(crate) const FORGET: &str = r"#!lua flags=allow-oom
local forgotten = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local fields = {}
    for i = 1, #consumer, 2 do fields[consumer[i]] = consumer[i + 1] end
    if fields['pending'] == 0 and fields['idle'] > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields['name'])
        forgotten = forgotten + 1
    end
end
return forgotten";
