"""The client of SalesLoft: it sends one request, once. Only this area knows aiohttp's client.

1. The target goes out byte for byte, to one fixed origin. No URL is joined or normalised, and no redirect followed.
2. One call is one request on the wire. A pooled connection that died while it was idle is noticed before a byte is
   written, and replaced.
3. Nothing is added: no User-Agent, Accept, Content-Type or Content-Length that the client did not send; no cookies;
   nothing is decompressed.
4. Foreign exceptions end here: whatever aiohttp raises becomes an ``UpstreamFault`` that knows whether a byte of the
   request may have been sent.
5. The certificate is verified before a byte of the request, and so of the token, is written; no setting turns it off.

It stands on aiohttp's connector (names, TLS, the pool) and response parser, not on its session. The session repeats
idempotent requests by itself (``retry_persistent_connection``), merges headers that differ in case only
(``_prepare_headers``), adds ``Content-Length: 0`` to a POST without a body, and takes a third of a request's time
(benchmarks/README.md); for none of these it has a switch.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from slproxy.auth import Form, TokenEndpointReply
from slproxy.config import UpstreamSettings
from slproxy.retry import REPEATABLE
from slproxy.upstream import forms
from slproxy.upstream.faults import EvictedError, evicted, fault_of, is_silence, not_http
from slproxy.upstream.outbound import Outbound, request_head
from slproxy.upstream.pool import Connector, connector
from slproxy.upstream.reply import Reply
from slproxy.upstream.reuse import suspended
from slproxy.upstream.round_trip import RoundTrip
from slproxy.upstream.slots import Slot, Slots

if TYPE_CHECKING:
    from types import TracebackType


class _Origin:
    """Where requests go: fixed at the start, so that nothing a client sends can change it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        # What aiohttp's connector knows an origin by. It is never sent.
        self.request = aiohttp.ClientRequest("GET", URL(url), loop=asyncio.get_running_loop())


def _nothing() -> None:
    """Do nothing, where a request takes no slot and has no client."""


class Upstream:
    """The client of SalesLoft: a pool of connections to the API's and to the accounts' origin."""

    _connector: Connector
    _api: _Origin
    _accounts: _Origin

    def __init__(self, rules: UpstreamSettings, *, suspended: Callable[[], float] = suspended) -> None:
        """``suspended`` tells for how many seconds the machine has slept, more or less a constant."""
        self._rules = rules
        self._suspended = suspended
        self._connect_timeout = aiohttp.ClientTimeout(connect=rules.connect_timeout)
        # What a reply of the accounts host may take in all, in seconds.
        self.accounts_timeout = forms.ACCOUNTS_TIMEOUT
        self.slots = Slots(rules.max_connections, timeout=rules.response_timeout)

    async def __aenter__(self) -> Self:
        self._connector = connector(self._rules, self._suspended)
        self._api, self._accounts = _Origin(self._rules.api_url), _Origin(self._rules.accounts_url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connector.close()

    async def send(
        self, outbound: Outbound, slot: Slot, *, response_timeout: float, before_first_byte: Callable[[], None]
    ) -> Reply:
        """Send one request to the API and return the head of its reply, whatever its status.

        The head is waited for as long as ``upstream.response_timeout``, or ``response_timeout`` if that is less, in
        seconds. The slot is released once the reply is done with; where there is none, by the caller.
        ``before_first_byte`` is called once there is a connection; nothing is sent if it raises.

        Raises:
            UpstreamFault: there was no reply.
            Overloaded: the connection was evicted for requests that waited.
        """
        timeout = min(self._rules.response_timeout, response_timeout)
        return await self._send(
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
        outbound = Outbound(method="GET", target="/", headers=[("Accept", "*/*")])
        origin = self._accounts if accounts else self._api
        reply = await self._send(origin, outbound, response_timeout=self.accounts_timeout)
        reply.close()
        return TokenEndpointReply(status=reply.status, headers=forms.headers_by_name(reply), body=b"")

    async def _send(
        self,
        origin: _Origin,
        outbound: Outbound,
        *,
        response_timeout: float,
        on_close: Callable[[], None] = _nothing,
        before_first_byte: Callable[[], None] = _nothing,
    ) -> Reply:
        """Make the one physical send; ``on_close`` is called once the reply is done with."""
        head = request_head(outbound, origin.host)
        round_trip: RoundTrip | None = None
        try:
            connection = await self._connector.take(
                origin.request, self._connect_timeout, repeatable=outbound.method in REPEATABLE
            )
            round_trip = RoundTrip(connection, on_close, self.slots.round_trips)
            before_first_byte()
            message, content = await round_trip.exchange(head, outbound, response_timeout=response_timeout)
            if message.code < 200:
                # 101 without having asked for an upgrade, which is not passed on (RFC 9110 §15.2.2).
                raise not_http()
            if not content.is_eof():
                self._connector.bodies[round_trip.protocol].content = content
            return Reply(message, content, round_trip, idle_timeout=self._rules.idle_timeout)
        except BaseException as error:
            if round_trip is not None:
                round_trip.close(keep=False)  # which releases its slot; the caller does where there was none
            if is_silence(error):
                self._connector.era.end()  # the next attempt must not get another connection of the same age
            if isinstance(error, EvictedError):
                raise evicted() from error
            if isinstance(error, aiohttp.ClientError | HttpProcessingError | OSError):
                maybe_sent = round_trip is not None and round_trip.maybe_sent
                raise fault_of(error, maybe_sent=maybe_sent, timeout=response_timeout) from error
            raise
