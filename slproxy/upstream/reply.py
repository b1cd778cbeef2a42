"""One reply of the upstream: its head, and its body as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.http import HttpProcessingError

from slproxy.errors import Problem, UpstreamTimeout, UpstreamUnreachable
from slproxy.http import RawHeaders
from slproxy.retry import Outcome
from slproxy.upstream.faults import EvictedError, evicted
from slproxy.upstream.round_trip import RoundTrip

if TYPE_CHECKING:
    from aiohttp.http import RawResponseMessage


class Reply:
    """The upstream's reply: its head, and a body that is read once. Close it, or read it to the end."""

    def __init__(
        self, message: RawResponseMessage, content: aiohttp.StreamReader, round_trip: RoundTrip, *, idle_timeout: float
    ) -> None:
        self._idle_timeout = idle_timeout
        self._content = content
        self._round_trip = round_trip
        # How the connection ends is part of a body that lasts until then (RFC 9112 §8); aiohttp takes a reset for it.
        until_close = not message.chunked and "Content-Length" not in message.headers and not content.is_eof()
        self._end = round_trip.protocol.closed if until_close else None
        self.status = message.code
        self.reason = message.reason
        self.headers: RawHeaders = message.raw_headers
        # Returns the first value of a header, by any case of its name.
        self.header: Callable[[str], str | None] = message.headers.get

    @property
    def outcome(self) -> Outcome:
        """What the attempt came to, for the retries."""
        return Outcome(
            status=self.status, maybe_sent=True, retry_after=self.header("Retry-After"), date=self.header("Date")
        )

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read. Raises UpstreamFault when it was not whole."""
        if not self._content.at_eof():
            return False
        self._check_end()
        return True

    def read_nowait(self) -> bytes:
        """Return what has arrived of the body and was not read yet, perhaps nothing. Raises UpstreamFault."""
        if not self._content.is_eof():
            self._round_trip.client_wait_started()
        try:
            return self._content.read_nowait()
        except (aiohttp.ClientError, HttpProcessingError) as error:
            raise self._broken(error) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; the next chunk is read once the last was taken.

        Raises:
            UpstreamFault: the body broke off, or nothing came for ``upstream.idle_timeout``.
        """
        self._round_trip.client_wait_ended(moved=0)
        try:
            while chunk := self._content.read_nowait() or await self._next():
                self._round_trip.client_wait_started()
                yield chunk
                self._round_trip.client_wait_ended(moved=len(chunk))
        except (aiohttp.ClientError, HttpProcessingError) as error:
            raise self._broken(error) from error
        self._check_end()
        self.close()

    async def _next(self) -> bytes:
        """Wait for more of the body. aiohttp's own timer starts again with each byte, be it none of a body."""
        try:
            async with asyncio.timeout(self._idle_timeout):
                return await self._content.readany()
        except TimeoutError as error:
            raise aiohttp.SocketTimeoutError from error

    def _check_end(self) -> None:
        if self._end is not None and self._end.done() and (error := self._end.exception()) is not None:
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> Problem:
        self.close()
        if isinstance(error, EvictedError):
            return evicted()
        if isinstance(error, aiohttp.SocketTimeoutError):
            return UpstreamTimeout(
                "SalesLoft sent nothing for upstream.idle_timeout in the middle of a body.",
                maybe_sent=True,
                proxy_error="connection_read_timeout",
            )
        return UpstreamUnreachable(
            "SalesLoft's reply broke off in the middle of its body.",
            maybe_sent=True,
            proxy_error="http_response_incomplete",
        )

    def close(self) -> None:
        """Give the connection back if both bodies were carried to their ends, else close it. May be called again."""
        self._round_trip.close(keep=self._content.is_eof())
