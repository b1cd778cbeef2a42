"""Redis budget: the team's minutes, for replicas that share them. One script reserves, and one settles.

1. A hash for each minute of the upstream: what all replicas have spent of it, what of that is still in flight, and the
   least that a reply has told to remain.
2. A reply that is lost with its replica stays in flight: it costs what was reserved for it, until the minute is over.
3. Redis is asked, not waited for: where it does not answer at once, a replica goes on by what its own replies tell.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import cast

from slproxy.config import Secret
from slproxy.store import connect_redis, redis_errors

log = logging.getLogger("slproxy.pace")

# How long Redis may take to be connected to, and to answer, in seconds: requests wait for it.
TIMEOUT = 0.5
# How long a replica goes on alone before it asks again, in seconds.
FALLBACK_SECONDS = 2.0
# How long a minute is kept, in ms: until the last reply to what was sent in it.
KEY_TTL = 180_000

# KEYS: the minute. ARGV: the team's limit; our quota of it; the headroom for others; how long to keep the minute, in
# ms; 1 if a single request is to probe whether the budget is back; and of each who waits, in their order, the cost, the
# client and its own budget, or two empty texts. Returns a letter for each: `g` for granted, `w` for one that waits, `o`
# for one whose client is over its own budget, whom nobody waits behind; what is left at best, if the upstream has
# counted what is in flight; and what others than the replicas have spent at least, or -1 as long as no reply of this
# minute has told.
RESERVE = """
local minute = redis.call('HMGET', KEYS[1], 'spent', 'in_flight', 'remaining')
local spent, in_flight, remaining = tonumber(minute[1]) or 0, tonumber(minute[2]) or 0, tonumber(minute[3])
local limit, quota, headroom = tonumber(ARGV[1]), tonumber(ARGV[2]) - spent, tonumber(ARGV[3])
local left = math.min((remaining and remaining - in_flight or limit - spent) - headroom, quota)
local verdicts, sum, waits, own = {}, 0, false, {}
for each = 6, #ARGV, 3 do
  local cost, client, budget = tonumber(ARGV[each]), ARGV[each + 1], tonumber(ARGV[each + 2])
  if budget and not own[client] then
    own[client] = tonumber(redis.call('HGET', KEYS[1], 'client:' .. client)) or 0
  end
  if budget and own[client] + cost > budget then
    verdicts[#verdicts + 1] = 'o'
  else
    waits = waits or (spent + sum > 0 and not remaining and ARGV[5] == '1')
      or (sum + math.min(cost, tonumber(ARGV[2])) > left and (remaining or spent + sum > 0))
    verdicts[#verdicts + 1] = waits and 'w' or 'g'
    if not waits then
      sum = sum + cost
      if budget then
        own[client] = own[client] + cost
        redis.call('HINCRBY', KEYS[1], 'client:' .. client, cost)
      end
    end
  end
end
if sum > 0 then
  redis.call('HINCRBY', KEYS[1], 'spent', sum)
  redis.call('HINCRBY', KEYS[1], 'in_flight', sum)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
local best = math.min((remaining or limit - spent) - headroom, quota) - sum
return {table.concat(verdicts), best, remaining and math.max(0, limit - remaining - spent) or -1}
"""
# KEYS: the minute. ARGV: what was reserved; what it has cost; what remains, empty if no reply has told; the client
# whose own budget it was of, or an empty text; the team's limit. Returns what others than the replicas have spent at
# least, or -1 as long as that is not told. `0 - n`, since Lua makes `-0` of nothing, which is no integer to Redis.
SETTLE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local in_flight = redis.call('HINCRBY', KEYS[1], 'in_flight', 0 - tonumber(ARGV[1]))
if in_flight < 0 then redis.call('HSET', KEYS[1], 'in_flight', 0) end
redis.call('HINCRBY', KEYS[1], 'spent', tonumber(ARGV[2]) - tonumber(ARGV[1]))
if ARGV[4] ~= '' then
  redis.call('HINCRBY', KEYS[1], 'client:' .. ARGV[4], tonumber(ARGV[2]) - tonumber(ARGV[1]))
end
local remaining = tonumber(redis.call('HGET', KEYS[1], 'remaining'))
if ARGV[3] == '' then
  if remaining then redis.call('HINCRBY', KEYS[1], 'remaining', 0 - tonumber(ARGV[2])) end
elseif not remaining or tonumber(ARGV[3]) < remaining then
  redis.call('HSET', KEYS[1], 'remaining', ARGV[3])
end
local minute = redis.call('HMGET', KEYS[1], 'spent', 'remaining')
return minute[2] and math.max(0, tonumber(ARGV[5]) - tonumber(minute[2]) - tonumber(minute[1])) or -1
"""
GRANTED, WAITS, OVER_OWN = "gwo"


def minute_key(profile: str, minute: int) -> str:
    """Return where a minute is kept; ``minute`` counts from 1970."""
    return f"slproxy:budget:{profile}:{minute}"


@dataclass(frozen=True, slots=True)
class Allocation:
    """What became of each cost, what is left at best of the minute, and what no replica has spent of it.

    ``verdicts`` has ``GRANTED``, ``WAITS`` or ``OVER_OWN`` for each. ``others`` is ``None`` as long as no reply of the
    minute has told what remains.
    """

    verdicts: str
    left: int
    others: int | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a reservation; ``remaining`` is what the reply said to remain of that very minute.

    ``client`` is whose own budget it was of, if it was of one.
    """

    minute: int
    reserved: int
    cost: int
    remaining: int | None
    client: str = ""


class RedisBudget:
    """The minutes of one team, as its replicas share them."""

    def __init__(self, url: Secret, profile: str) -> None:
        """Raises ConfigError when ``url`` is none of Redis, or redis-py is missing."""
        self._redis, self.host = connect_redis(url, connect_timeout=TIMEOUT, reply_timeout=TIMEOUT, retries=0)
        self._errors = redis_errors()
        self._profile = profile
        self.is_alone = False

    async def reserve(
        self,
        minute: int,
        costs: Sequence[int],
        *,
        own: Sequence[tuple[str, int] | None] = (),
        limit: int,
        quota: int,
        headroom: int,
        probing: bool,
    ) -> Allocation | None:
        """Reserve costs for all replicas to see, as many as there is budget for; ``None`` without an answer.

        ``own`` names for each cost the client and its own budget, where it has one; empty: none has.
        While ``probing``, the first of all replicas finds out whether the budget is back, and the others wait for it.
        """
        asked = [part for cost, each in zip_longest(costs, own) for part in (cost, *(each or ("", "")))]
        arguments = (limit, quota, headroom, KEY_TTL, int(probing), *asked)
        key = minute_key(self._profile, minute)
        answer = await self._ask(cast("Awaitable[object]", self._redis.eval(RESERVE, 1, key, *map(str, arguments))))
        if answer is None:
            return None
        verdicts, left, others = cast("tuple[bytes | str, int, int]", answer)
        text = verdicts if isinstance(verdicts, str) else verdicts.decode()
        return Allocation(text, left, others if others >= 0 else None)

    async def settle(self, settlements: Sequence[Settlement], *, limit: int) -> list[int | None]:
        """Say what became of reservations; return what no replica has spent of the minute of each, where that is told.

        Without an answer nothing is returned.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for each in settlements:
            told = "" if each.remaining is None else str(each.remaining)
            arguments = (str(each.reserved), str(each.cost), told, each.client, str(limit))
            pipeline.eval(SETTLE, 1, minute_key(self._profile, each.minute), *arguments)
        answer = cast("list[int]", await self._ask(pipeline.execute()) or [])
        return [others if others >= 0 else None for others in answer]

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _ask(self, question: Awaitable[object]) -> object | None:
        try:
            answer = await question
        except self._errors as error:
            if not self.is_alone:
                log.warning(
                    "Redis does not answer (%s): this replica goes on by what SalesLoft tells it.", type(error).__name__
                )
            self.is_alone = True
            return None
        if self.is_alone:
            log.info("Redis answers again: the budget is shared.")
        self.is_alone = False
        return answer
