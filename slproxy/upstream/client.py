"""The client of SalesLoft: it sends one request, once.

1. The target goes out byte for byte, to one fixed origin. No URL is joined or normalised, and no redirect followed.
2. One call is one request on the wire. A pooled connection that died while it was idle is noticed before a byte is
   written, and replaced.
3. Nothing is added: no User-Agent, Accept, Content-Type or Content-Length that the client did not send; no cookies;
   nothing is decompressed.
4. Foreign exceptions end here: whatever goes wrong becomes an ``UpstreamFault`` that knows whether a byte of the
   request may have been sent.
5. The certificate is verified before a byte of the request, and so of the token, is written; no setting turns it off.

A request on its way::

    client        _send: a connection, a round trip, a reply, or the fault that it came to
    ├ pool        an idle connection that is still good, such as the spare, or a new one
    │ └ dial      names, addresses, TLS
    └ round_trip  writes the request, reads the reply
      ├ connection  bytes, with back-pressure both ways
      └ parser      the reply's head and body from its bytes
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self

from slproxy.auth import Form, TokenEndpointReply
from slproxy.config import UpstreamSettings
from slproxy.retry import REPEATABLE
from slproxy.upstream import forms
from slproxy.upstream.dial import Dialer, Origin
from slproxy.upstream.faults import EvictedError, evicted, fault_of, is_silence
from slproxy.upstream.outbound import Outbound, request_head
from slproxy.upstream.parser import NotHTTPError
from slproxy.upstream.pool import Pool
from slproxy.upstream.reply import Reply
from slproxy.upstream.reuse import suspended
from slproxy.upstream.round_trip import RoundTrip
from slproxy.upstream.slots import Slot, Slots
from slproxy.upstream.spare import Spare

if TYPE_CHECKING:
    from types import TracebackType


# How often deadlines are looked at, in seconds: a timer for each request would take 4 % of its time.
WATCH_EVERY = 0.1


def _nothing() -> None:
    """Do nothing, where a request takes no slot and has no client."""


class Upstream:
    """The client of SalesLoft: a pool of connections to the API's and to the accounts' origin."""

    _dialer: Dialer
    _pool: Pool

    def __init__(
        self,
        rules: UpstreamSettings,
        *,
        suspended: Callable[[], float] = suspended,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``suspended`` tells for how many seconds the machine has slept, more or less a constant."""
        self._rules = rules
        self._suspended, self._jitter = suspended, jitter
        self._spare: Spare | None = None
        self._api, self._accounts = Origin.of(rules.api_url), Origin.of(rules.accounts_url)
        # What a reply of the accounts host may take in all, in seconds.
        self.accounts_timeout = forms.ACCOUNTS_TIMEOUT
        self.slots = Slots(rules.max_connections, timeout=rules.response_timeout)
        self._watching: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._dialer = Dialer(self._rules)
        self._pool = Pool(self._dialer, self._suspended, self._last_lost)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spare is not None:
            await self._spare.close()
        self._pool.close()
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.sleep(0)  # asyncio closes sockets in the next turn of its loop

    def keep_warm(self) -> None:
        """Keep a connection to the API ready, for ``upstream.warm`` seconds from now and from each use."""
        if self._rules.warm and self._spare is None:
            self._spare = Spare(self._pool, self._api, seconds=self._rules.warm, jitter=self._jitter)

    def stop_warming(self) -> None:
        """Make no connection any more but for requests."""
        if self._spare is not None:
            self._spare.stop()

    def mark_used(self) -> None:
        """Note that a client has sent a request to the API."""
        if self._spare is not None:
            self._spare.used()

    @property
    def has_old_ca(self) -> bool:
        """Whether ``upstream.ca_file`` holds something else than when it was loaded. Reads the file."""
        return self._dialer.has_old_ca

    @property
    def warning(self) -> str | None:
        """Why the API cannot be reached, as far as the connection that is to be ready tells."""
        return None if self._spare is None else self._spare.warning

    @property
    def connections(self) -> int:
        """How many connections to SalesLoft are open."""
        return self._pool.connections

    def _last_lost(self, origin: Origin, idle: float | None) -> None:
        if self._spare is not None and origin == self._api:
            self._spare.lost(idle)

    def send(
        self, outbound: Outbound, slot: Slot, *, response_timeout: float, before_first_byte: Callable[[], None]
    ) -> Awaitable[Reply]:
        """Send one request to the API and return the head of its reply, whatever its status.

        The head is waited for as long as ``upstream.response_timeout``, or ``response_timeout`` if that is less, in
        seconds. The slot is released once the reply is done with; where there is none, by the caller.
        ``before_first_byte`` is called once there is a connection; nothing is sent if it raises.

        Raises:
            UpstreamFault: there was no reply.
            Overloaded: the connection was evicted for requests that waited.
        """
        longest = self._rules.response_timeout
        timeout = response_timeout if response_timeout < longest else longest
        return self._send(
            self._api,
            outbound,
            response_timeout=timeout,
            on_close=slot.release,
            before_first_byte=before_first_byte,
        )

    async def post_form(self, form: Form) -> TokenEndpointReply:
        """Post a form to the accounts host and return its whole reply. Raises UpstreamFault."""
        send = functools.partial(self._send, self._accounts, response_timeout=self.accounts_timeout)
        return await forms.post_form(form, send, within=self.accounts_timeout)

    async def check_reachable(self, *, accounts: bool) -> TokenEndpointReply:
        """Get the front page of one of the two hosts, without a token, and return its status and headers.

        Raises UpstreamFault: it cannot be reached, or its certificate is not good.
        """
        outbound = Outbound(method="GET", target="/", headers=b"Accept: */*\r\n")
        origin = self._accounts if accounts else self._api
        reply = await self._send(origin, outbound, response_timeout=self.accounts_timeout)
        reply.close()
        return TokenEndpointReply(status=reply.status, headers=forms.headers_by_name(reply), body=b"")

    async def check_proxy(self, *, accounts: bool) -> None:
        """Have the egress proxy, if any, open a connection to one of the two hosts. Raises UpstreamFault."""
        await self._dialer.check_proxy(self._accounts if accounts else self._api)

    async def _send(
        self,
        origin: Origin,
        outbound: Outbound,
        *,
        response_timeout: float,
        on_close: Callable[[], None] = _nothing,
        before_first_byte: Callable[[], None] = _nothing,
    ) -> Reply:
        """Make the one physical send; ``on_close`` is called once the reply is done with."""
        head = request_head(outbound, origin.authority)
        pool = self._pool
        round_trip: RoundTrip | None = None
        try:
            repeatable = outbound.method in REPEATABLE
            connection = pool.ready(origin, repeatable=repeatable) or await pool.take(origin, repeatable=repeatable)

            def closed(keep: bool) -> None:
                pool.release(origin, connection, keep=keep)
                on_close()

            round_trip = RoundTrip(connection, outbound.method, closed, self.slots.round_trips)
            if self._watching is None:
                self._watching = asyncio.get_running_loop().call_later(WATCH_EVERY, self._watch)
            before_first_byte()
            await round_trip.exchange(head, outbound, response_timeout=response_timeout)
            if round_trip.reply.status < 200:
                # 101 without having asked for an upgrade, which is not passed on (RFC 9110 §15.2.2).
                raise NotHTTPError("an upgrade that nobody asked for")
            return Reply(round_trip, self._rules.idle_timeout)
        except BaseException as error:
            if round_trip is not None:
                round_trip.close()  # which releases its slot; the caller does where there was none
            if is_silence(error) or is_silence(error.__cause__):
                pool.era.end()  # the next attempt must not get another connection of the same age
            if isinstance(error, EvictedError):
                raise evicted() from error
            if isinstance(error, OSError | NotHTTPError):
                raise fault_of(error, timeout=response_timeout) from error
            raise

    def _watch(self) -> None:
        """Fail the requests whose replies are late."""
        loop = asyncio.get_running_loop()
        now, round_trips = loop.time(), self.slots.round_trips
        for round_trip in round_trips:
            round_trip.check_deadline(now)
        self._watching = loop.call_later(WATCH_EVERY, self._watch) if round_trips else None
