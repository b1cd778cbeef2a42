"""TLS over any transport, by the public ``ssl.MemoryBIO``, the same on every event loop.

asyncio's and uvloop's own allocate 256 KiB for each connection, resume no session, and asyncio's takes an end without
``close_notify`` for the end of a body: a reply that somebody cut off would look whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

P = TypeVar("P", bound=asyncio.BufferedProtocol)

# What is encrypted in one go, in bytes: a BIO never gives back what it grew to.
WRITE_SIZE = 64 * 1024


class Tls(asyncio.Transport, asyncio.BufferedProtocol, Generic[P]):
    """One connection: a protocol to the transport below, which carries records, and a transport to the one above.

    ``secured`` is done when the certificate is verified and ``connection_made`` was called above. Until then nothing
    of what is above is on the wire.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        host: str,
        make: Callable[[], P],
        buffer: memoryview,
        *,
        session: ssl.SSLSession | None = None,
        keep_session: Callable[[ssl.SSLSession, bool], None],
    ) -> None:
        """Wrap what ``make`` makes.

        ``buffer`` takes what was read until it is decrypted, which is before anything else is read, so that all
        connections of a loop share one. ``session`` is resumed where the server agrees. ``keep_session`` gets what
        may be resumed later, and whether it was resumed itself: the tickets of TLS 1.3 come after the handshake
        (RFC 8446 §4.6.1).
        """
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host, session=session)
        self._make = make
        self._buffer = buffer
        self._keep_session: Callable[[ssl.SSLSession, bool], None] | None = keep_session
        self._below: asyncio.Transport | None = None
        self._above: asyncio.BufferedProtocol | None = None
        self._is_reading = True
        self._is_closing = False
        self._has_ended = False
        self._error: Exception | None = None
        # How it ends, once what came before is passed on.
        self._conclude: Callable[[], None] | None = None
        self.secured: asyncio.Future[P] = asyncio.get_running_loop().create_future()

    # The protocol, to what is below.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._below = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self._shake_hands()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Return where records are read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take records that were read."""
        self._incoming.write(self._buffer[:nbytes])
        if self._above is None:
            self._shake_hands()
            return
        self._decrypt()
        self._offer_session()

    def _offer_session(self) -> None:
        if self._keep_session is not None and (session := self._tls.session) is not None:
            self._keep_session(session, bool(self._tls.session_reused))
            self._keep_session = None

    def eof_received(self) -> bool:
        """Take the end, which is a proper one only after ``close_notify``."""
        self._incoming.write_eof()
        if self._above is None:
            self._shake_hands()
        else:
            self._decrypt()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell what is above, or who waits for the handshake."""
        self._is_closing = True
        error = self._error or exc
        if self._above is not None:
            self._above.connection_lost(error)
        elif not self.secured.done():
            self.secured.set_exception(error or ConnectionResetError("the connection ended in the TLS handshake"))
            self.secured.exception()  # nobody waits for it where the attempt was given up right before

    def pause_writing(self) -> None:
        """Pass it on."""
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._above is not None:
            self._above.resume_writing()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()
        if self._is_closing or self.secured.done():  # who waited has given up
            self.abort()
            return
        above = self._make()
        self._above = above
        above.connection_made(self)
        self.secured.set_result(above)
        self._decrypt()
        if self._tls.version() != "TLSv1.3":
            self._offer_session()  # which the handshake has made, and nothing may come any more

    def _decrypt(self) -> None:
        """Pass on what has come, as far as it is taken."""
        above = self._above
        assert above is not None
        has_more = True
        while has_more and self._is_reading and not self._is_closing:
            buffer = memoryview(above.get_buffer(-1))
            size, has_more = self._fill(buffer)
            if size:
                above.buffer_updated(size)
        if self._conclude is not None:
            # At once: a connection that has ended must not get another request.
            self._conclude()
        if self._outgoing.pending and not self._is_closing:
            self._flush()  # an answer of TLS itself, such as to a KeyUpdate

    def _fill(self, buffer: memoryview) -> tuple[int, bool]:
        """Decrypt into a buffer, and return how many bytes, and whether there may be more at once.

        Several records at a time: what is above costs more for each piece of a large reply than the decrypting.
        """
        tls, size, room = self._tls, 0, len(buffer)
        try:
            while size < room:
                part = buffer[size:] if size else buffer
                count: int = tls.read(room - size, part)  # type: ignore[assignment]  # a count, into a buffer
                if not count:
                    self._conclude = self._end
                    return size, False
                size += count
                # All of it was decrypted, as far as it came: asking once more would cost an exception.
                if not (self._incoming.pending or self._incoming.eof or tls.pending()):
                    return size, False
        except ssl.SSLWantReadError:
            return size, False
        except ssl.SSLError as error:
            self._conclude = functools.partial(self._fail, error)
            return size, False
        return size, size > 0  # none where there is no room: to ask again would be for ever

    def _end(self) -> None:
        """Take the ``close_notify`` of the peer."""
        if not self._is_closing and not self._has_ended and self._above is not None:
            self._has_ended = True
            if not self._above.eof_received():
                self.close()

    def _flush(self) -> None:
        if self._below is not None and (records := self._outgoing.read()):
            self._below.write(records)

    def _fail(self, error: Exception) -> None:
        """End the connection, and say why to either side: the peer gets an alert, unless it takes nothing any more."""
        if self._is_closing:
            return
        self._error = error
        self._is_closing = True
        if self._below is not None:
            is_stuck = self._below.get_write_buffer_size() > 0
            self._flush()
            (self._below.abort if is_stuck else self._below.close)()

    # The transport, to what is above.

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Encrypt and send."""
        if self._is_closing or self._below is None:
            return
        size = len(data)
        if size <= WRITE_SIZE:
            if size:
                self._tls.write(data)
                self._below.write(self._outgoing.read())
            return
        view = memoryview(data)
        for start in range(0, size, WRITE_SIZE):
            self._tls.write(view[start : start + WRITE_SIZE])
            self._below.write(self._outgoing.read())

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Encrypt and send."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Send what was written and ``close_notify``, and close, without waiting for the peer's (RFC 8446 §6.1)."""
        if self._is_closing or self._below is None:
            return
        self._is_closing = True
        with contextlib.suppress(ssl.SSLError):  # it wants to read the peer's
            self._tls.unwrap()
        self._flush()
        self._below.close()

    def abort(self) -> None:
        """Close at once."""
        self._is_closing = True
        if self._below is not None:
            self._below.abort()

    def is_closing(self) -> bool:
        """Return whether it is closed, or about to be."""
        return self._is_closing or self._below is None or self._below.is_closing()

    def pause_reading(self) -> None:
        """Pass nothing on for now."""
        self._is_reading = False
        if self._below is not None:
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what has come already at once: later it might pass for the reply to another request."""
        if self._is_reading:
            return
        self._is_reading = True
        if self._below is not None and not self._is_closing:
            self._below.resume_reading()
            self._decrypt()

    def is_reading(self) -> bool:
        """Return whether what comes is passed on."""
        return self._is_reading and not self._is_closing

    def can_write_eof(self) -> bool:
        """Return False: TLS 1.2 has no half-closed connections."""
        return False

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return 0 if self._below is None else self._below.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Pass it on."""
        if self._below is not None:
            self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Pass it on."""
        assert self._below is not None
        return self._below.get_write_buffer_limits()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Put another protocol above."""
        assert isinstance(protocol, asyncio.BufferedProtocol)
        self._above = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return what is above."""
        assert self._above is not None
        return self._above

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the session's ``ssl_object``, or what the transport below knows."""
        if name == "ssl_object":
            return self._tls
        return default if self._below is None else self._below.get_extra_info(name, default)
