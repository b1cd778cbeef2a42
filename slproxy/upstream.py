"""Sends one request to the upstream, once. The only module that knows aiohttp's client.

1. The target goes out byte for byte, to one fixed origin. No URL is joined or normalised, and no redirect followed.
2. One call is one request on the wire: aiohttp's own retry is cut off, and a pooled connection that died while it was
   idle is noticed before a byte is written and replaced.
3. Nothing is added: no User-Agent, Accept, Content-Type or Content-Length that the client did not send; no cookies;
   nothing is decompressed.
4. Foreign exceptions end here: whatever aiohttp raises becomes an ``UpstreamFault`` that knows whether a byte of the
   request may have left.
5. The certificate is verified before a byte of the request, and so of the token, is written; no setting turns it off.
"""

from __future__ import annotations

import asyncio
import errno
import select
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import SplitResult, urlsplit
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp import hdrs
from yarl import URL

from slproxy import settings
from slproxy.errors import UpstreamFault, UpstreamTimeout, UpstreamUnreachable
from slproxy.headers import Fields, RawHeaders
from slproxy.oauth import Answer, Form
from slproxy.retry import Outcome

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

# How much is read ahead of a client that reads slowly: aiohttp stops at twice this (hazards, trap 14).
READ_AHEAD = 16 * 1024
# aiohttp's limits of 8,190 bytes a header and 128 headers make errors of replies that are legitimate (hazards, trap 10).
MAX_HEADER_LINE = 64 * 1024
MAX_HEADER_COUNT = 1000
# An idle connection is given up before common servers give theirs up (nginx: 75 s), which spares most stale ones.
KEEPALIVE = 50.0
# A reply of the token endpoint, in bytes and seconds. The time must leave room for a second try within a renewal.
MAX_ANSWER = 64 * 1024
ANSWER_TIMEOUT = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outbound:
    """One request as it goes out: an origin-form target, headers less ``Host``, and a body that is told as it is read."""

    method: str
    target: str
    headers: Fields = field(repr=False)
    body: Callable[[], AsyncIterator[bytes]] | bytes | None = field(default=None, repr=False)


class Reply:
    """The upstream's reply: its head, and a body that is read once. Close it, or read it to the end."""

    def __init__(self, response: aiohttp.ClientResponse, *, idle_timeout: float, on_close: Callable[[], None]) -> None:
        self._response = response
        self._idle_timeout = idle_timeout
        self._on_close = on_close
        self.status = response.status
        self.reason = response.reason or ""
        self.headers: RawHeaders = response.raw_headers

    @property
    def outcome(self) -> Outcome:
        """What the attempt came to, for the retries."""
        return Outcome(
            status=self.status,
            reached=True,
            retry_after=self._response.headers.get(hdrs.RETRY_AFTER),
            date=self._response.headers.get(hdrs.DATE),
        )

    def header(self, name: str) -> str | None:
        """Return the first value of a header, by any case of its name."""
        return self._response.headers.get(name)

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read."""
        return self._response.content.at_eof()

    def read_nowait(self) -> bytes:
        """Return what has arrived of the body and was not read yet, perhaps nothing."""
        try:
            return self._response.content.read_nowait()
        except aiohttp.ClientError as error:
            raise self._broken(error) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; the next chunk is read once the last was taken.

        Raises:
            UpstreamFault: the body broke off, or nothing came for ``upstream.idle_timeout``.
        """
        content = self._response.content
        try:
            while not self.ended:
                if chunk := content.read_nowait():
                    yield chunk
                    continue
                async with asyncio.timeout(self._idle_timeout):
                    chunk = await content.readany()
                if chunk:
                    yield chunk
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"SalesLoft sent nothing for {self._idle_timeout:g} s in the middle of a body.",
                reached=True,
                proxy_error="connection_read_timeout",
            ) from error
        except aiohttp.ClientError as error:
            raise self._broken(error) from error
        self.close()

    def _broken(self, error: aiohttp.ClientError) -> UpstreamFault:
        self.close()
        fault = UpstreamUnreachable(
            "SalesLoft's reply broke off in the middle of its body.",
            reached=True,
            proxy_error="http_response_incomplete",
        )
        fault.__cause__ = error
        return fault

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it. May be called again."""
        if self._response.content.is_eof():
            self._response.release()
        else:
            self._response.close()
        self._on_close()


class _Request(aiohttp.ClientRequest):
    """A request that says when its first byte is about to leave, and that adds nothing of its own."""

    about_to_send: Callable[[], None]

    def update_body_from_data(self, body: object, _stacklevel: int = 3) -> None:
        """Take the body; without one, leave the headers alone: aiohttp would add ``Content-Length: 0`` to a POST."""
        if body is not None:
            super().update_body_from_data(body, _stacklevel + 1)

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        self.about_to_send()
        return await super().send(conn)


class _Line:
    """What is known of one connection: whether it has carried a request, and the body that is being read from it."""

    def __init__(self) -> None:
        self.used = False
        self.reading: aiohttp.StreamReader | None = None

    def on_closed(self, closed: asyncio.Future[None]) -> None:
        """End a body that nobody would end: aiohttp forgets it when a later chunk of it does not parse.

        In ``_http_parser.pyx``, ``feed_data`` drops its payload before it raises, so that ``connection_lost`` finds
        none to tell, and the reader waits until its own timeout.
        """
        if not closed.cancelled():
            closed.exception()  # retrieved, or asyncio would complain that nobody did
        if self.reading is not None and not self.reading.is_eof() and self.reading.exception() is None:
            self.reading.set_exception(aiohttp.ClientPayloadError("the connection closed within a body"))


class _Connector(aiohttp.TCPConnector):
    """A pool that never hands out a connection which the upstream has closed while it was idle."""

    lines: WeakKeyDictionary[ResponseHandler, _Line]

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            line = self._line(connection)
            # Only one that has carried a request can have died while idle. On a new one, bytes that wait to be read
            # are TLS 1.3 session tickets (RFC 8446 §4.6.1), not an end of file.
            if not line.used or not _is_readable(connection):
                line.used = True
                return connection
            connection.close()

    def read(self, connection: Connection, body: aiohttp.StreamReader) -> None:
        """Take note of the body that is being read from a connection."""
        self._line(connection).reading = body

    def _line(self, connection: Connection) -> _Line:
        protocol = connection.protocol
        assert protocol is not None, "a connection in hand has a protocol"
        if (line := self.lines.get(protocol)) is None:
            line = self.lines[protocol] = _Line()
            if protocol.closed is not None:
                protocol.closed.add_done_callback(line.on_closed)
        return line


def _is_readable(connection: Connection) -> bool:
    """Tell whether the socket has something to read: on an idle connection that is its end, or nothing we asked for."""
    transport = connection.transport
    if transport is None or transport.is_closing():
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


class _Sending:
    """One send: whether a byte of it may have left, and how long the upstream may stay silent."""

    def __init__(
        self, fields: Fields, body: Callable[[], AsyncIterator[bytes]] | bytes | None, *, patience: float
    ) -> None:
        self.fields = fields
        self._body = body
        self._patience = patience
        self._limit: asyncio.Timeout | None = None
        self.reached = False

    async def middleware(self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """Send once and translate what goes wrong.

        The session repeats idempotent requests by itself after ``ClientOSError`` and ``ServerDisconnectedError``
        (aiohttp/client.py, ``retry_persistent_connection``) and has no public switch for it; it never sees them here.
        """
        assert isinstance(request, _Request)
        request.about_to_send = self._about_to_send
        # Through the session's `headers`, `Accept` and `accept` would become one (aiohttp/client.py, _prepare_headers).
        framing = request.headers.getall(hdrs.TRANSFER_ENCODING, [])
        request.headers.clear()
        request.headers.extend([(hdrs.HOST, request.url.host_port_subcomponent or ""), *self.fields])
        request.headers.extend((hdrs.TRANSFER_ENCODING, coding) for coding in framing)
        try:
            async with asyncio.timeout(None) as self._limit:
                return await send(request)
        except TimeoutError as error:
            if self._limit is not None and self._limit.expired():
                raise UpstreamTimeout(
                    f"SalesLoft did not answer within {self._patience:g} s.",
                    reached=self.reached,
                    hint="If it does not pass, see https://status.salesloft.com.",
                ) from error
            raise _fault(error, reached=self.reached) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error, reached=self.reached) from error
        finally:
            self._limit = None

    @property
    def data(self) -> AsyncIterator[bytes] | bytes | None:
        """The body, as aiohttp's client takes it."""
        return self._told(self._body) if callable(self._body) else self._body

    async def _told(self, read: Callable[[], AsyncIterator[bytes]]) -> AsyncIterator[bytes]:
        """Yield the client's body. While it waits for the client, the upstream's silence does not count."""
        self._be_patient(None)
        async for chunk in read():
            self._be_patient(self._patience)
            yield chunk
            self._be_patient(None)
        self._be_patient(self._patience)

    def _about_to_send(self) -> None:
        self.reached = True
        self._be_patient(self._patience)

    def _be_patient(self, seconds: float | None) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


class Upstream:
    """The way to SalesLoft: a pool of connections to the API's and to the accounts' origin."""

    def __init__(self, rules: settings.Upstream) -> None:
        self._rules = rules
        self._api, self._accounts = urlsplit(rules.api_url), urlsplit(rules.accounts_url)
        self._session: aiohttp.ClientSession | None = None
        # The pool itself is unlimited: a wait for a free connection is the proxy's, and must not look like a timeout of
        # the upstream (hazards, trap 13).
        self._free = asyncio.Semaphore(rules.max_connections)

    async def __aenter__(self) -> Self:
        self._connector = _Connector(limit=0, keepalive_timeout=KEEPALIVE, ssl=_ssl_context(self._rules.ca_file))
        self._connector.lines = WeakKeyDictionary()
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=(hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._rules.connect_timeout),
            read_bufsize=READ_AHEAD,
            max_line_size=MAX_HEADER_LINE,
            max_field_size=MAX_HEADER_LINE,
            max_headers=MAX_HEADER_COUNT,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, outbound: Outbound) -> Reply:
        """Send one request to the API and return the head of its reply, whatever its status.

        Raises:
            UpstreamFault: there was no reply.
        """
        await self._free.acquire()
        release = _once(self._free.release)
        try:
            response = await self._request(
                outbound.method,
                _exact_url(self._api, outbound.target),
                _Sending(outbound.headers, outbound.body, patience=self._rules.response_timeout),
            )
        except BaseException:
            release()
            raise
        return Reply(response, idle_timeout=self._rules.idle_timeout, on_close=release)

    async def ask(self, form: Form) -> Answer:
        """Post a form to the accounts host and return its whole answer.

        Raises:
            UpstreamFault: there was no answer, or none within ``ANSWER_TIMEOUT``.
        """
        body = form.encode()
        fields = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        sending = _Sending(fields, body, patience=ANSWER_TIMEOUT)
        response = await self._request("POST", _exact_url(self._accounts, form.path), sending)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                content = await _read_at_most(response.content, MAX_ANSWER)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _fault(error, reached=True) from error
        finally:
            response.close()
        return Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=content,
        )

    async def _request(self, method: str, url: URL, sending: _Sending) -> aiohttp.ClientResponse:
        assert self._session is not None, "the upstream is used inside its `async with`"
        response = await self._session.request(
            method,
            url,
            # Only what aiohttp frames the body by; `_Sending.middleware` puts in the rest.
            headers=[field for field in sending.fields if field[0].lower() == "content-length"],
            data=sending.data,
            allow_redirects=False,
            middlewares=(sending.middleware,),
        )
        if response.status < 200:
            # 101 without having asked for an upgrade, which is not passed on (RFC 9110 §15.2.2).
            response.close()
            raise _not_http()
        if response.connection is not None:
            self._connector.read(response.connection, response.content)
        return response


def _exact_url(origin: SplitResult, target: str) -> URL:
    """Return a URL whose request target is ``target``, byte for byte.

    The whole target goes in as a path: yarl would split off the query, and lose a ``?`` with nothing behind it.
    """
    return URL.build(
        scheme=origin.scheme, host=origin.hostname or "", port=origin.port, path=target, encoded=True
    )


async def _read_at_most(content: aiohttp.StreamReader, limit: int) -> bytes:
    """Read a body to its end, or to ``limit`` bytes: more is no answer of a token endpoint, and reads as none."""
    read = b""
    while len(read) <= limit and (chunk := await content.readany()):
        read += chunk
    return read[:limit]


def _ssl_context(ca_file: str | Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context


def _once(action: Callable[[], None]) -> Callable[[], None]:
    """Return ``action`` such that calling it again does nothing."""
    pending = [action]
    return lambda: pending.pop()() if pending else None


_CHECK_NETWORK = "Check the network and upstream.api_url."

# RFC 9209 §2.3 has a name for each way in which a connection does not come about.
_ERRNO = {
    errno.ECONNREFUSED: ("connection_refused", "SalesLoft's host refused the connection."),
    errno.EHOSTUNREACH: ("destination_ip_unroutable", "There is no route to SalesLoft's host."),
    errno.ENETUNREACH: ("destination_ip_unroutable", "There is no route to SalesLoft's host."),
}


def _not_http() -> UpstreamUnreachable:
    return UpstreamUnreachable(
        "SalesLoft's reply was not valid HTTP.", reached=True, hint=_CHECK_NETWORK, proxy_error="http_protocol_error"
    )


def _fault(error: Exception, *, reached: bool) -> UpstreamFault:
    """Return what a foreign exception means, with RFC 9209's name for it. Its text stays in the log."""
    hint = _CHECK_NETWORK
    match error:
        case aiohttp.ClientConnectorCertificateError():
            name, detail = "tls_certificate_error", "SalesLoft's certificate could not be verified."
            hint = "If a company proxy re-signs TLS, set upstream.ca_file to its CA. Verification is never turned off."
        case aiohttp.ClientConnectorSSLError():
            name, detail = "tls_protocol_error", "The TLS handshake with SalesLoft failed."
        case aiohttp.ClientConnectorDNSError():
            name, detail = "dns_error", "The name of SalesLoft's host could not be resolved."
        case TimeoutError() if not reached:
            name, detail = "connection_timeout", "Connecting to SalesLoft took too long."
        case TimeoutError():
            return UpstreamTimeout("SalesLoft did not answer in time.", reached=reached, hint=hint)
        case aiohttp.ClientConnectorError():
            name, detail = _ERRNO.get(
                error.os_error.errno or 0, ("destination_unavailable", "SalesLoft's host cannot be reached.")
            )
        case aiohttp.ClientResponseError():
            return _not_http()
        case _:
            name, detail = "connection_terminated", "The connection to SalesLoft broke before a reply came."
    return UpstreamUnreachable(detail, reached=reached, hint=hint, proxy_error=name)
