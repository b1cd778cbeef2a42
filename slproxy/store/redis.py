"""Redis store: the token in Redis, for replicas that share one login.

1. The lock expires, so that a replica which dies or hangs blocks nobody for longer than ``LOCK_TIMEOUT``.
2. So the lock only saves renewals. The write itself is fenced: Redis compares the versions, and an older record never
   replaces a newer one, whoever held the lock meanwhile.
3. A replica whose lock has expired may still bring the newest token, and the only one that works: it is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import cast

from slproxy.config import Secret
from slproxy.errors import DamagedError, StoreError
from slproxy.store.cipher import TokenCipher
from slproxy.store.record import Record
from slproxy.store.record_format import parse_record, serialize_record
from slproxy.store.redis_client import connect_redis, redis_errors
from slproxy.store.token_store import LOCK_TIMEOUT, stale_write

# How often a lock that another replica holds is asked for, in seconds.
LOCK_POLL = 0.05
# How long a connection to Redis and a reply may take, in seconds.
CONNECT_TIMEOUT, REPLY_TIMEOUT = 2.0, 3.0
# How often a replica looks for what others did, in seconds: some servers are paid by the command.
WATCH_INTERVAL = 5.0

# KEYS: the token; the marks of a logout and of a login. ARGV: the record's version in three parts; the record. 1 when
# it was stored, 0 when what is there is newer.
_WRITE = """
for place, part in ipairs(redis.call('HMGET', KEYS[1], 'login', 'generation', 'obtained_at')) do
  if not part or tonumber(ARGV[place]) > tonumber(part) then break end
  if tonumber(ARGV[place]) < tonumber(part) then return 0 end
end
redis.call('HSET', KEYS[1], 'login', ARGV[1], 'generation', ARGV[2], 'obtained_at', ARGV[3], 'record', ARGV[4])
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[3], '1')
return 1
"""
# KEYS: the token; the mark of a logout, without which an empty Redis is one that has lost its data.
_DELETE = "redis.call('SET', KEYS[2], '1') return redis.call('DEL', KEYS[1])"
# KEYS: the lock. ARGV: its owner, for how many ms. Asked again after a reply that was lost, it is still the owner's.
_LOCK = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
"""
# KEYS: the lock. ARGV: its owner. Frees the lock of nobody else.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisStore:
    """A token as a hash of Redis, one a profile."""

    def __init__(self, url: Secret, profile: str, cipher: TokenCipher) -> None:
        """Raises ConfigError when ``url`` is no Redis URL, or redis-py is missing."""
        self._redis, host = connect_redis(url, connect_timeout=CONNECT_TIMEOUT, reply_timeout=REPLY_TIMEOUT, retries=1)
        self._errors = redis_errors()
        # Without the password that it may hold.
        self.description = f"redis {host}"
        self.watch_interval = WATCH_INTERVAL
        self._token, self._lock = f"slproxy:token:{profile}", f"slproxy:lock:{profile}"
        self._logout_mark, self._login_mark = f"slproxy:logout:{profile}", f"slproxy:login:{profile}"
        self._cipher = cipher

    @property
    def encryption(self) -> str:
        return self._cipher.description

    async def read(self) -> Record | None:
        stored = await self._run(self._redis.hget(self._token, "record"))
        if stored is None:
            return None
        assert isinstance(stored, bytes), "this client does not decode"
        record = await asyncio.to_thread(self._parse, stored)
        if record is not None:
            return record
        aside = await self.quarantine()
        raise DamagedError(
            f"What Redis holds at {self._token} is no token of slproxy. It was moved to {aside}.",
            hint="Run: slproxy login",
        )

    async def stamp(self) -> object:
        return await self._run(self._redis.hmget(self._token, "login", "generation", "obtained_at"))

    async def was_wiped(self) -> bool:
        return not await self._run(self._redis.exists(self._token, self._logout_mark))

    async def had_login(self) -> bool:
        had = bool(await self._run(self._redis.exists(self._token, self._logout_mark, self._login_mark)))
        if had:
            with contextlib.suppress(StoreError):  # earlier versions left no mark; whoever asks next tries again
                await self._run(self._redis.set(self._login_mark, "1", nx=True))
        return had

    async def write(self, record: Record) -> None:
        encrypted = await asyncio.to_thread(self._cipher.encrypt, serialize_record(record))
        was_stored = await self._run(
            self._redis.eval(
                _WRITE,
                3,
                *(self._token, self._logout_mark, self._login_mark),
                *(repr(part) for part in record.version),
                encrypted,
            )
        )
        if not was_stored:
            raise stale_write()

    async def try_out(self) -> None:
        key, text = f"{self._token}:trial", await asyncio.to_thread(self._cipher.try_out)
        async with self.lock():
            await self._run(self._redis.set(key, text, px=int(LOCK_TIMEOUT * 1000)))
            found = await self._run(self._redis.get(key))
            await self._run(self._redis.delete(key))
            if found != text:
                raise StoreError(f"Redis does not return {key} as it was written.", hint="Check store.redis_url.")

    async def delete(self) -> None:
        await self._run(self._redis.eval(_DELETE, 2, self._token, self._logout_mark))

    async def quarantine(self) -> str:
        aside = f"{self._token}:aside:{time.time():.3f}"
        await self._run(self._redis.set(self._login_mark, "1"))
        await self._run(self._redis.renamenx(self._token, aside))
        return aside

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        owner = secrets.token_hex(8)
        deadline = time.monotonic() + LOCK_TIMEOUT
        try:
            while not await self._run(self._redis.eval(_LOCK, 1, self._lock, owner, str(int(LOCK_TIMEOUT * 1000)))):
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"Other replicas have held {self._lock} for {LOCK_TIMEOUT:.0f} s.",
                        hint="Find the replica that hangs.",
                    )
                await asyncio.sleep(LOCK_POLL)
            yield
        finally:
            # Also when the reply to the request for it was lost: it may have been granted.
            with contextlib.suppress(*self._errors):  # it expires by itself
                await cast("Awaitable[object]", self._redis.eval(_RELEASE, 1, self._lock, owner))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _parse(self, stored: bytes) -> Record | None:
        try:
            return parse_record(self._cipher.decrypt(stored))
        except ValueError:
            return None

    async def _run(self, command: object) -> object:
        try:
            return await cast("Awaitable[object]", command)
        except self._errors as error:
            raise StoreError(
                f"Redis does not answer ({type(error).__name__}).", hint="Check store.redis_url, and that Redis is up."
            ) from error
