"""The inspector as its page uses it: the stream of events, documents, and what is asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.raw_http import Head, Message, get, port_of, raw, read_head
from tests.support.waiting import PATIENCE

Document = dict[str, Any]
PAGE = "/_slproxy/inspector/"


@dataclass
class Event:
    name: str
    data: Document
    id: str
    raw: str


class Stream:
    """A stream of events that was opened; ``head`` is the answer's."""

    def __init__(self, head: Head, reader: asyncio.StreamReader) -> None:
        self.head = head
        self.last_id = ""
        self._reader = reader
        self._text = ""

    async def next(self, *names: str, timeout: float = PATIENCE) -> Event:
        """Return the next event of these names, or of any. Raises EOFError at the end of the stream."""
        async with asyncio.timeout(timeout):
            while True:
                block, found, rest = self._text.partition("\n\n")
                if not found:
                    self._text += await self._chunk()
                    continue
                self._text = rest
                lines = [line.partition(": ") for line in block.split("\n")]
                fields = {name: value for name, _, value in lines if name in ("event", "data", "id")}
                self.last_id = fields.get("id", self.last_id)
                if "event" in fields and (not names or fields["event"] in names):
                    return Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""), block)

    async def row(self, n: int, state: str = "done") -> Document:
        """Return the row of an exchange once it is in that state."""
        while True:
            for row in (await self.next("rows")).data["rows"]:
                if row["n"] == n and row["state"] == state:
                    return dict(row)

    async def _chunk(self) -> str:
        try:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            data = (await self._reader.readexactly(size + 2))[:-2]
        except asyncio.IncompleteReadError as error:
            raise EOFError from error
        if not size:
            raise EOFError
        return data.decode()


@asynccontextmanager
async def stream(url: str, *headers: str, query: str = "") -> AsyncIterator[Stream]:
    """Open a stream of events, as an EventSource does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url), limit=2**22)
    try:
        writer.write(get(f"{PAGE}events{query}", "Accept: text/event-stream", *headers))
        yield Stream(await read_head(reader), reader)
    finally:
        writer.close()


async def act(url: str, name: str, document: object, *headers: str) -> tuple[int, Document]:
    """Ask for something as the page does; return the status and what was answered."""
    own = ("Content-Type: application/json", "X-Slproxy-Inspector: 1", *headers)
    answer = await raw(url, get(PAGE + name, *own, method="POST", body=json.dumps(document).encode()))
    return answer.head.status, json.loads(answer.body)


async def details(url: str, n: int) -> Document:
    """Return all that is kept of an exchange."""
    answer = await raw(url, get(f"{PAGE}exchanges/{n}"))
    assert answer.head.status == 200, answer.body
    return dict(json.loads(answer.body))


async def archive(url: str, query: str = "") -> Document:
    """Return the HAR."""
    answer = await raw(url, get(f"{PAGE}har{query}"))
    assert answer.head.status == 200, answer.body
    return dict(json.loads(answer.body))


async def post(url: str, target: str, body: bytes, *headers: str) -> Message:
    """Send a POST of a client's."""
    return await raw(url, get(target, *headers, method="POST", body=body))
