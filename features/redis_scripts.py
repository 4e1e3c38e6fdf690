"""The scripts that run inside Redis, each atomic on the keys of one row."""

import hashlib
from typing import Any

from redis import Redis
from redis.cluster import RedisCluster

# KEYS row, meta. ARGV header, fence, limit of a row that has none, limit of a row that this delta begins (0: none), records.
# A higher fence drops what is older at once; a row's fence drops older records of later deltas.
# Answers the row's version where it is to be tidied.
APPEND = """
local row, meta = KEYS[1], KEYS[2]
local fence, records = tonumber(ARGV[2]), ARGV[5]
local function since(body, first)
  local kept, from = {}, nil
  for at = first, #body, 32 do
    if struct.unpack('<i8', body, at) >= fence then
      from = from or at
    elseif from then
      kept[#kept + 1] = string.sub(body, from, at - 1)
      from = nil
    end
  end
  if from then kept[#kept + 1] = string.sub(body, from) end
  return table.concat(kept)
end
local bytes = redis.call('STRLEN', row)
local own, old = tonumber(ARGV[4]), 0
if bytes > 0 then
  old = struct.unpack('<i8', redis.call('GETRANGE', row, 8, 15))
  if old > fence then fence = old end
end
if fence > 0 then records = since(records, 1) end
if bytes == 0 then
  redis.call('SET', row, ARGV[1] .. records)
  bytes = 16 + #records
  if own > tonumber(ARGV[3]) then redis.call('HSET', meta, 'limit', own) end
elseif fence > old then
  local kept = since(redis.call('GET', row), 17)
  redis.call('SET', row, ARGV[1] .. kept .. records)
  redis.call('HINCRBY', meta, 'version', 1)
  redis.call('HDEL', meta, 'limit')
  bytes = 16 + #kept + #records
elseif #records > 0 then
  bytes = redis.call('APPEND', row, records)
end
local count, limit = (bytes - 16) / 32, tonumber(ARGV[3])
if count <= limit then return false end
local found = redis.call('HMGET', meta, 'limit', 'version')
if count <= tonumber(found[1] or limit) then return false end
return tonumber(found[2] or 0)
"""

# KEYS row, meta. ARGV version and bytes of the row as it was read, new limit, new row or nothing.
REWRITE = """
local row, meta = KEYS[1], KEYS[2]
local version = tonumber(redis.call('HGET', meta, 'version') or 0)
if version ~= tonumber(ARGV[1]) or redis.call('STRLEN', row) < tonumber(ARGV[2]) then return 0 end
if #ARGV[4] > 0 then
  redis.call('SET', row, ARGV[4] .. redis.call('GETRANGE', row, ARGV[2], -1))
  redis.call('HINCRBY', meta, 'version', 1)
end
redis.call('HSET', meta, 'limit', ARGV[3])
return 1
"""

# KEYS row. ARGV new row: it replaces one that is smaller as bytes. (Lua's own < follows the server's locale.)
NEWEST = """
local old, new = redis.call('GET', KEYS[1]), ARGV[1]
if old == new then return 0 end
if old then
  local length = math.min(#old, #new)
  local at, step = 1, 64
  while at <= length and string.sub(old, at, at + step - 1) == string.sub(new, at, at + step - 1) do at = at + step end
  while at <= length and string.byte(old, at) == string.byte(new, at) do at = at + 1 end
  if at > length and #new < #old then return 0 end
  if at <= length and string.byte(new, at) < string.byte(old, at) then return 0 end
end
redis.call('SET', KEYS[1], new)
return 1
"""

ALL = (APPEND, REWRITE, NEWEST)
_NAMES = {script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in ALL}


def run(client: Redis | RedisCluster, commands: list[tuple[Any, ...]]) -> list[Any]:
    """Run (script, keys, arguments...) in one pipeline; the replies, in which errors are values.

    A cluster's pipeline has no `evalsha` of its own, but sends the command to the node of its keys.
    """
    with client.pipeline(transaction=False) as pipe:
        for script, keys, *arguments in commands:
            pipe.execute_command("EVALSHA", _NAMES[script], len(keys), *keys, *arguments)
        replies: list[Any] = pipe.execute(raise_on_error=False)
    return replies
