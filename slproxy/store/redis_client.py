"""Redis client: how the token store and the team's budget reach Redis. redis-py is imported late: it takes 100 ms."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from slproxy.config import Secret
from slproxy.errors import ConfigError

if TYPE_CHECKING:
    from redis.asyncio import Redis


def connect_redis(url: Secret, *, connect_timeout: float, reply_timeout: float, retries: int) -> tuple[Redis, str]:
    """Return a client of the Redis at ``url``, which connects on first use, and the name of its host.

    Timeouts are in seconds. A command whose reply was lost is sent again ``retries`` times, and may then be
    carried out more than once.

    Raises ConfigError when ``url`` is no Redis URL, or redis-py is missing.
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
            raise ValueError("a password that is not percent-encoded would be taken for a host")
        if "decode_responses" in parts.query:
            raise ValueError("what is encrypted is bytes")
        redis: Redis = Redis.from_url(
            url.reveal(),
            socket_connect_timeout=connect_timeout,
            socket_timeout=reply_timeout,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), retries),
        )
    except (ValueError, TypeError):
        # Without the cause, which repeats what may be the password.
        raise ConfigError(
            "store.redis_url is not a Redis URL.",
            hint="Such as redis://localhost:6379/0; write %40 for @ in a password, %2F for / and %3F for ?",
        ) from None
    return redis, parts.hostname or "by a socket"


def redis_errors() -> tuple[type[Exception], ...]:
    """Return what a client raises when Redis does not answer, or answers with an error."""
    from redis.exceptions import RedisError  # noqa: PLC0415

    return RedisError, OSError
