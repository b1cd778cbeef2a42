"""Request body: read from the client once, and sent to the upstream as often as a retry needs it.

What was read is kept: first in memory, then in an unnamed temporary file, up to a limit. A larger body streams through
once and cannot be replayed. Reading from the client goes no faster than the upstream takes it. All bodies share the
memory for it: when that is taken, what comes goes to disk at once.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from io import FileIO

# A body of a known length up to this is read in whole before it is sent: it goes out in one write with the headers, and
# a client that dribbles it holds no upstream connection meanwhile. aiohttp's buffers hold as much anyway.
WHOLE = 64 * 1024


class ReplayMemory:
    """The memory for what is kept of all bodies together, in bytes."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0

    def take(self, size: int) -> bool:
        """Take so much of it if there is as much; return whether there was."""
        if self.taken + size > self.total:
            return False
        self.taken += size
        return True

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        self.taken -= size


class Body:
    """One request body; ``disk`` limits what is kept of it for a replay, ``memory`` what of that stays in memory."""

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        *,
        length: int | None,
        memory: int,
        disk: int,
        of_all: ReplayMemory,
    ) -> None:
        """``read`` returns the next bytes from the client, or none at the end; ``length`` is None when chunked.

        Of the memory of all bodies, it takes what it keeps there until it is closed.
        """
        self._read = read
        self._length = length
        self._memory, self._disk = memory if memory < disk else disk, disk
        self._of_all = of_all
        # Not the pieces that were read: small ones would each cost more than they hold.
        self._in_memory = bytearray()
        self._file: FileIO | None = None
        self._kept = 0
        self._received = 0
        self._ended = length == 0
        # What went wrong on the client's side: it surfaces in a write to the upstream, which is not to blame.
        self.error: Exception | None = None
        # Over the limit, or over the free space of the disk.
        self.too_large = length is not None and length > self._disk
        self._begun = self._is_closed = False
        # An attempt that was given up and the one that follows never read from the client at the same time.
        self._reading: asyncio.Lock | None = None

    @property
    def replayable(self) -> bool:
        """Whether it can be read from its start again: all of it is kept, or nobody has begun to read it."""
        return self.error is None and not (self.too_large and self._begun)

    @property
    def has_ended(self) -> bool:
        """Whether all of it has come from the client."""
        return self._ended

    async def whole(self) -> bytes | None:
        """Return a small body of known length as one piece; ``None`` where it has to be streamed."""
        if self._length is None or self._length > WHOLE or self._length > self._memory:
            return None
        if self._begun:
            return b"".join([chunk async for chunk in self.chunks()])
        # Nobody else reads it yet.
        pieces = []
        while not self._ended:
            pieces.append(await self._next())
        return b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body from its start. Only a ``replayable`` one can be read a second time."""
        position, reading = 0, self._reading or asyncio.Lock()
        self._reading = reading
        while not (self._ended and position == self._received):
            async with reading:
                if position < self._kept:
                    chunk = self._kept_from(position)
                else:
                    assert position == self._received, "a body that cannot be replayed is read once"
                    chunk = await self._next()
            if not chunk:
                return
            position += len(chunk)
            yield chunk

    def close(self) -> None:
        """Free what was kept, and keep nothing more."""
        self._is_closed = True
        self._kept = 0
        self._free_memory()
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _next(self) -> bytes:
        if self._ended:
            return b""
        self._begun = True
        try:
            chunk = await self._read()
        except Exception as error:
            self.error = error
            raise
        self._received += len(chunk)
        self._ended = not chunk or self._received == self._length
        if chunk and not (self.too_large or self._is_closed):
            self._keep(chunk)
        return chunk

    def _keep(self, chunk: bytes) -> None:
        """Keep a chunk. Without an await, so that a cancelled attempt cannot lose what was already read."""
        size = self._kept + len(chunk)
        if size > self._disk:
            self._give_up()
            return
        if self._file is None and size <= self._memory and self._of_all.take(len(chunk)):
            self._in_memory += chunk
            self._kept = size
            return
        try:
            if self._file is None:
                # Unbuffered: a write that finds no room must fail here, not when the file is read or closed.
                self._file = tempfile.TemporaryFile(prefix="slproxy-", buffering=0)  # noqa: SIM115  # closed by `close`
                chunk = b"".join((self._in_memory, chunk))
                self._free_memory()
                self._kept = 0
            self._file.seek(self._kept)
            if self._file.write(chunk) != len(chunk):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:  # no room: the body still streams, it just cannot be replayed
            self._give_up()
            return
        self._kept = size

    def _give_up(self) -> None:
        self.too_large = True
        self.close()

    def _kept_from(self, position: int) -> bytes:
        if self._file is not None:
            self._file.seek(position)
            return self._file.read(min(WHOLE, self._kept - position))
        return bytes(memoryview(self._in_memory)[position : position + WHOLE])

    def _free_memory(self) -> None:
        self._of_all.give_back(len(self._in_memory))
        self._in_memory = bytearray()
