"""The token in Redis, for replicas that share one login.

1. The lock expires, so that a replica which dies or hangs blocks nobody for longer than ``LOCK_TIMEOUT``.
2. So the lock is a courtesy, and the fence is in the write: Redis itself compares the generations, and an older token
   never replaces a newer one, whoever held the lock meanwhile.
3. A replica whose lock has expired may still bring the newest token, and the only one that is alive: it is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from slproxy.config import Secret
from slproxy.errors import ConfigError, DamagedError, StoreError
from slproxy.store.encryption import TokenCipher
from slproxy.store.record import Record, parse_record, serialize_record
from slproxy.store.store import LOCK_TIMEOUT, stale_write

if TYPE_CHECKING:
    from redis.asyncio import Redis


# How often a lock that another replica holds is asked for, in seconds.
LOCK_POLL = 0.05
# How long Redis may take to be connected to, and to answer, in seconds.
CONNECT_TIMEOUT, ANSWER_TIMEOUT = 2.0, 3.0

# KEYS: the token; the mark of a logout. ARGV: the record's rank in three parts; the record. 1 when it was taken, 0 when
# what is there is newer.
_WRITE = """
for place, part in ipairs(redis.call('HMGET', KEYS[1], 'login', 'generation', 'obtained_at')) do
  if not part or tonumber(ARGV[place]) > tonumber(part) then break end
  if tonumber(ARGV[place]) < tonumber(part) then return 0 end
end
redis.call('HSET', KEYS[1], 'login', ARGV[1], 'generation', ARGV[2], 'obtained_at', ARGV[3], 'record', ARGV[4])
redis.call('DEL', KEYS[2])
return 1
"""
# KEYS: the token; the mark of a logout, without which an empty Redis is one that has lost its data.
_DELETE = "redis.call('SET', KEYS[2], '1') return redis.call('DEL', KEYS[1])"
# KEYS: the lock. ARGV: its owner, for how many ms. Asked again after an answer that was lost, it is still the owner's.
_LOCK = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
"""
# KEYS: the lock. ARGV: its owner. Frees the lock of nobody else.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


def client(url: Secret, *, connect_timeout: float, answer_timeout: float, retries: int) -> tuple[Redis, str]:
    """Return a client of the Redis at ``url``, and what its host is called; timeouts are in seconds.

    A command whose answer was lost is sent again ``retries`` times: it may then be carried out more than once.

    Raises ConfigError when ``url`` is none of Redis, or redis-py is missing.
    """
    try:
        from redis.asyncio import Redis  # noqa: PLC0415  # the extra `redis`
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import ExponentialBackoff  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("store.kind = redis needs the package redis.", hint="pip install 'slproxy[redis]'") from error
    try:
        parts = urlsplit(url.reveal())
        if "@" in parts.path + parts.query + parts.fragment:
            raise ValueError("a password that is not percent-serialize_record would be taken for a host")
        if "decode_responses" in parts.query:
            raise ValueError("what is sealed is bytes")
        redis: Redis = Redis.from_url(
            url.reveal(),
            socket_connect_timeout=connect_timeout,
            socket_timeout=answer_timeout,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), retries),
        )
    except (ValueError, TypeError):
        # Without the cause, which repeats what may be the password.
        raise ConfigError(
            "store.redis_url is no address of a Redis.",
            hint="such as redis://localhost:6379/0; write %40 for @ in a password, %2F for / and %3F for ?",
        ) from None
    return redis, parts.hostname or "by a socket"


def errors() -> tuple[type[Exception], ...]:
    """Return what a client raises when Redis does not answer, or answers with an error."""
    from redis.exceptions import RedisError  # noqa: PLC0415

    return RedisError, OSError


class RedisStore:
    """A token as a hash of Redis, one a profile."""

    def __init__(self, url: Secret, profile: str, cipher: TokenCipher) -> None:
        """Raises ConfigError when ``url`` is none of Redis, or redis-py is missing."""
        self._redis, host = client(url, connect_timeout=CONNECT_TIMEOUT, answer_timeout=ANSWER_TIMEOUT, retries=1)
        self._error = errors()
        # Without the password that it may hold.
        self.description = f"redis {host}"
        self._token, self._lock = f"slproxy:token:{profile}", f"slproxy:lock:{profile}"
        self._logout_mark = f"slproxy:logout:{profile}"
        self._cipher = cipher

    @property
    def encryption(self) -> str:
        return self._cipher.description

    async def read(self) -> Record | None:
        kept = await self._ask(self._redis.hget(self._token, "record"))
        if kept is None:
            return None
        assert isinstance(kept, bytes), "this client does not decode"
        opened = await asyncio.to_thread(self._opened, kept)
        if opened is not None:
            return opened
        aside = await self.quarantine()
        raise DamagedError(
            f"What Redis holds at {self._token} is no token of slproxy. It was set aside as {aside}.",
            hint="Run: slproxy login",
        )

    async def was_wiped(self) -> bool:
        return not await self._ask(self._redis.exists(self._token, self._logout_mark))

    async def write(self, record: Record) -> None:
        encrypted = await asyncio.to_thread(self._cipher.encrypt, serialize_record(record))
        taken = await self._ask(
            self._redis.eval(
                _WRITE, 2, self._token, self._logout_mark, *(repr(part) for part in record.version), encrypted
            )
        )
        if not taken:
            raise stale_write()

    async def delete(self) -> None:
        await self._ask(self._redis.eval(_DELETE, 2, self._token, self._logout_mark))

    async def quarantine(self) -> str:
        aside = f"{self._token}:aside:{time.time():.3f}"
        await self._ask(self._redis.renamenx(self._token, aside))
        return aside

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        owner = secrets.token_hex(8)
        deadline = time.monotonic() + LOCK_TIMEOUT
        try:
            while not await self._ask(self._redis.eval(_LOCK, 1, self._lock, owner, str(int(LOCK_TIMEOUT * 1000)))):
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"Other replicas have held {self._lock} for {LOCK_TIMEOUT:.0f} s.", hint="Look at them."
                    )
                await asyncio.sleep(LOCK_POLL)
            yield
        finally:
            # Also when the answer to the request for it was lost: it may have been given.
            with contextlib.suppress(*self._error):  # it expires by itself
                await cast("Awaitable[object]", self._redis.eval(_RELEASE, 1, self._lock, owner))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _opened(self, kept: bytes) -> Record | None:
        try:
            return parse_record(self._cipher.decrypt(kept))
        except ValueError:
            return None

    async def _ask(self, question: object) -> object:
        try:
            return await cast("Awaitable[object]", question)
        except self._error as error:
            raise StoreError(
                f"Redis does not answer ({type(error).__name__}).", hint="Check store.redis_url, and that Redis is up."
            ) from error
