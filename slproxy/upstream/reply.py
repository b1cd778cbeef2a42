"""One reply of the upstream: its head, and its body as it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from slproxy.errors import Problem, UpstreamTimeout, UpstreamUnreachable
from slproxy.http import RawHeaders
from slproxy.retry import Outcome
from slproxy.upstream.faults import CHECK_STATUS, EvictedError, evicted
from slproxy.upstream.parser import NotHTTPError
from slproxy.upstream.round_trip import RoundTrip


class Reply:
    """The upstream's reply: its head, and a body that is read once. Close it, or read it to the end."""

    def __init__(self, round_trip: RoundTrip, idle_timeout: float) -> None:
        self._round_trip = round_trip
        self._idle_timeout = idle_timeout
        parsed = round_trip.reply
        self.status = parsed.status
        self.reason = parsed.reason
        self.headers: RawHeaders = parsed.headers
        # The first value of each header, by its name in lower case.
        self.first: Mapping[bytes, bytes] = parsed.first

    def header(self, name: str) -> str | None:
        """Return the first value of a header, by any case of its name."""
        value = self.first.get(name.lower().encode())
        return None if value is None else value.decode("utf-8", "surrogateescape")

    @property
    def outcome(self) -> Outcome:
        """What the attempt came to, for the retries."""
        return Outcome(
            status=self.status, maybe_sent=True, retry_after=self.header("Retry-After"), date=self.header("Date")
        )

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read."""
        return self._round_trip.is_read

    def read_nowait(self) -> bytes:
        """Return what has arrived of the body and was not read yet, perhaps nothing. Raises UpstreamFault."""
        if not self._round_trip.is_complete:
            self._round_trip.client_wait_started()
        try:
            return self._round_trip.take()
        except (OSError, NotHTTPError, EvictedError) as error:
            raise self._broken(error) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; the next chunk is read once the last was taken.

        Raises:
            UpstreamFault: the body broke off, or nothing came for ``upstream.idle_timeout``.
        """
        round_trip = self._round_trip
        round_trip.client_wait_ended(moved=0)
        try:
            while chunk := await round_trip.take_more(idle_timeout=self._idle_timeout):
                round_trip.client_wait_started()
                yield chunk
                round_trip.client_wait_ended(moved=len(chunk))
        except (OSError, NotHTTPError, EvictedError) as error:
            raise self._broken(error) from error
        self.close()

    def _broken(self, error: Exception) -> Problem:
        self.close()
        if isinstance(error, EvictedError):
            return evicted()
        if isinstance(error, TimeoutError):
            return UpstreamTimeout(
                "SalesLoft sent nothing for upstream.idle_timeout in the middle of a body.",
                maybe_sent=True,
                hint=CHECK_STATUS,
                proxy_error="connection_read_timeout",
            )
        return UpstreamUnreachable(
            "SalesLoft's reply broke off in the middle of its body.",
            maybe_sent=True,
            hint=CHECK_STATUS,
            proxy_error="http_response_incomplete",
        )

    def close(self) -> None:
        """Give the connection back if both bodies were carried to their ends, else close it. May be called again."""
        self._round_trip.close()
