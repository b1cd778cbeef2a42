"""Mutated requests and mutated replies, by the thousand and over real sockets: what holds whatever the bytes are.

``--fuzz N`` sends more of them, ``FUZZ_SEED=1`` others, ``FUZZ_CASE=requests:123`` (or ``:100-199``) some again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import io
import itertools
import json
import logging
import os
import random
import re
import select
import socket
import struct
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import pytest

from slproxy.app import App
from slproxy.config import LimitSettings, RetrySettings
from slproxy.config.schema import LogSettings, PaceSettings
from slproxy.observe import AccessLog
from tests.support.proxies import API_KEY, settings_for
from tests.support.raw_http import port_of
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.heavy

SEED = os.environ.get("FUZZ_SEED", "0")
KEY = API_KEY.encode()
# Cases at a time. The upstream connections are few more, so that lost ones tell.
AT_ONCE = 50
ROUND = 500
# What a run tells at most: one defect shows in many cases.
TOLD = 12
# Of the upstream's silence, where a reply stays unfinished; on loopback everything else takes milliseconds.
SILENCE = 6.0


# HTTP/1.1 as RFC 9112 has it, read with no mercy. It shares no code with the proxy, nor with its parser.

Fields = list[tuple[bytes, bytes]]

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"(%s) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])" % TOKEN)
# What a client may mean: RFC 9112 §2.2 and §3 let a server skip empty lines before, and take more spaces for one.
LOOSE_REQUEST_LINE = re.compile(rb"(%s) +([\x21-\x7e\x80-\xff]+) +HTTP/1\.([01])" % TOKEN)
# The space before an empty reason is easily forgotten, and its absence has one reading only.
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
FIELD = re.compile(rb"(%s):([\t\x20-\x7e\x80-\xff]*)" % TOKEN)
# Other control characters may be kept (RFC 9110 §5.5): here, so that a field which stops at the proxy may hold them.
LOOSE_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([^\0\r\n]*))?")
LOOSE_FIELD = re.compile(rb"(%s):([^\0\r\n]*)" % TOKEN)
CHUNK = re.compile(rb"([0-9A-Fa-f]+)([\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?)")
# What a chunk's extension should be (RFC 9112 §7.1.1); nobody reads them.
EXTENSION = re.compile(rb'(?:;(%s)(?:=(?:%s|"(?:[^"\\]|\\.)*"))?)*' % (TOKEN, TOKEN))
LENGTH = re.compile(rb"[0-9]{1,19}")
LOOSE = re.compile(rb"(?<!\r)\n|[^\t\r\n\x20-\x7e\x80-\xff]")
# Those of which a reply has one (RFC 9110 §5.3), and a parser may insist.
SINGLE = (b"content-type", b"content-location", b"content-range", b"etag", b"server", b"date")

Case = TypeVar("Case")
Result = TypeVar("Result")


class MalformedError(Exception):
    """Bytes that are no message, whatever may follow."""


@dataclass
class Wire:
    """A message as it stood on the wire; ``end`` is where the next one begins, ``whole`` that nothing is missing."""

    first: re.Match[bytes]
    fields: Fields
    body: bytes = b""
    whole: bool = True
    end: int = 0
    # Something is wrong with it that does not touch what it says: who refuses it is right as well.
    doubtful: bool = False

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def status(self) -> int:
        return int(self.first[2])

    @property
    def key(self) -> tuple[bytes, bytes]:
        """Method and target, the latter in origin form."""
        return self.first[1], re.sub(rb"(?i)\Ahttps?://[^/?#]*", b"", self.first[2])


def read_head(data: bytes, start: int, line: re.Pattern[bytes], *, loose: bool = False) -> Wire | None:
    """Read a head; ``None`` if it has not ended. ``loose`` takes a bare LF for the end of a line (RFC 9112 §2.2)."""
    found = re.compile(rb"\r?\n\r?\n" if loose else rb"\r\n\r\n").search(data, start)
    if found is None:
        return None
    head = data[start : found.start()]
    first, *rest = re.split(rb"\r?\n", head) if loose else head.split(b"\r\n")
    match = line.fullmatch(first)
    matches = [(LOOSE_FIELD if loose else FIELD).fullmatch(each) for each in rest]
    if match is None or None in matches:
        raise MalformedError(first)
    fields = [(each[1], each[2].strip(b" \t")) for each in matches if each]
    doubtful = loose and LOOSE.search(data, start, found.end()) is not None
    return Wire(match, fields, end=found.end(), doubtful=doubtful)


def read_body(data: bytes, wire: Wire, *, loose: bool = False) -> bool:
    """Read the body that the fields frame into ``wire``; tell whether they frame one."""
    lengths, codings = wire.all(b"content-length"), wire.all(b"transfer-encoding")
    if codings:
        # RFC 9112 §6.1: with both, the framing is faulty; and of the codings we know one.
        if lengths or [each.lower() for each in codings] != [b"chunked"]:
            raise MalformedError(codings)
        _read_chunks(data, wire, loose=loose)
    elif lengths:
        if len(lengths) > 1 or not LENGTH.fullmatch(lengths[0]):
            raise MalformedError(lengths)
        wire.body = data[wire.end : wire.end + int(lengths[0])]
        wire.whole = len(wire.body) == int(lengths[0])
        wire.end += len(wire.body)
    return bool(codings or lengths)


def _read_chunks(data: bytes, wire: Wire, *, loose: bool) -> None:
    """Read chunks up to the first that is unfinished or no chunk: what came before it is the body, and not whole."""
    wire.whole = False
    while True:
        line_end = data.find(b"\r\n", wire.end)
        match = CHUNK.fullmatch(data[wire.end : line_end]) if line_end >= 0 else None
        if match is None:
            return
        size, start = int(match[1], 16), line_end + 2
        wire.doubtful |= not EXTENSION.fullmatch(match[2] or b"")
        if size == 0:
            break
        wire.body += data[start : start + size]
        if data[start + size : start + size + 2] != b"\r\n":
            return
        wire.end = start + size + 2
    while (line_end := data.find(b"\r\n", start)) >= 0:  # the trailers
        line, start = data[start:line_end], line_end + 2
        if not line:
            wire.end, wire.whole = start, True
            return
        # They stop here, so that ``loose`` may take any; framing is not for trailers (RFC 9110 §6.5.1).
        field = FIELD.fullmatch(line)
        if field is None and not loose:
            return
        wire.doubtful |= field is None or field[1].lower() in (b"content-length", b"transfer-encoding")


def read_request(data: bytes, start: int, line: re.Pattern[bytes] = REQUEST_LINE) -> Wire | None:
    """Read a request; ``None`` if its head has not ended."""
    wire = read_head(data, start, line)
    if wire is not None:
        if wire.first[3] == b"0" and wire.all(b"transfer-encoding"):
            raise MalformedError(b"chunks in HTTP/1.0")  # RFC 9112 §6.1
        read_body(data, wire)
    return wire


def requests_in(data: bytes) -> tuple[list[Wire], bool]:
    """Return the requests that a client's bytes hold, the last one perhaps in part, and whether there is nothing else.

    This is the most that may reach the upstream.
    """
    found: list[Wire] = []
    at = 0
    while True:
        while data[at : at + 1] in (b"\r", b"\n"):
            at += 1
        if at == len(data):
            return found, True
        try:
            request = read_request(data, at, LOOSE_REQUEST_LINE)
        except MalformedError:
            return found, False
        if request is None:
            return found, False
        found.append(request)
        if not request.whole or request.first[1] == b"CONNECT":
            return found, False
        at = request.end


def read_reply(data: bytes, start: int, *, method: bytes, ended: str, loose: bool = False) -> Wire | None:
    """Read a reply to ``method``, on a connection that ``ended`` "closed", "reset" or not; ``None`` without a head."""
    wire = read_head(data, start, LOOSE_STATUS_LINE if loose else STATUS_LINE, loose=loose)
    if wire is None:
        return None
    start = wire.end
    framed = read_body(data, wire, loose=loose)
    if method == b"HEAD" or wire.status < 200 or wire.status in (204, 304):
        wire.body, wire.end, wire.whole = b"", start, True
    elif not framed:
        wire.body, wire.end, wire.whole = data[start:], len(data), ended == "closed"
    names = Counter(name.lower() for name, _ in wire.fields)
    wire.doubtful |= wire.end < len(data) or any(names[name] > 1 for name in SINGLE)
    return wire


INTERIM_HEAD = re.compile(rb"[\r\n]*HTTP/1\.[01] 1(?!01)[0-9][0-9][^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n")


def reply_in(data: bytes, method: bytes, ended: str) -> Wire | None:
    """Return the final reply that the upstream's bytes hold, whole or not; ``None`` where there is no valid head.

    What is not passed on is not looked at closely: interim replies, and empty lines before a reply.
    """
    at, doubtful = 0, False
    while interim := INTERIM_HEAD.match(data, at):
        at, doubtful = interim.end(), doubtful or not _is_valid(interim[0]) or at > 1000  # a series has to end
    start = len(data) - len(data[at:].lstrip(b"\r\n"))
    try:
        wire = read_reply(data, start, method=method, ended=ended, loose=True)
    except MalformedError:
        return None
    if wire is None or wire.status < 200:  # nobody asked for a 101 (RFC 9110 §15.2.2)
        return None
    wire.doubtful |= doubtful or start > at
    return wire


def _is_valid(interim: bytes) -> bool:
    try:
        return read_reply(interim, 0, method=b"GET", ended="") is not None
    except MalformedError:
        return False


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("data", "bodies", "clean"),
    [
        pytest.param(GET, [b""], True, id="one"),
        pytest.param(b"\r\n" + GET + GET, [b"", b""], True, id="two"),
        pytest.param(POST + b"Content-Length: 28\r\n\r\n" + GET + GET, [GET, b""], True, id="one in a body"),
        pytest.param(POST + b"Content-Length: 2\r\n\r\nab" + GET, [b"ab", b""], True, id="one after a body"),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nX: y\r\n\r\n" + GET,
            [b"ab", b""],
            True,
            id="one after chunks and trailers",
        ),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n" + GET, [b"ab"], False, id="a bad chunk"),
        pytest.param(POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [], False, id="both"),
        pytest.param(POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", [], False, id="a second length"),
        pytest.param(POST + b"Content-Length : 0\r\n\r\n", [], False, id="a space before the colon"),
        pytest.param(POST + b"X: a\r\n b\r\n\r\n", [], False, id="a folded line"),
        pytest.param(POST + b"X: a\n\r\n", [], False, id="a bare LF"),
        pytest.param(GET.replace(b"1.1", b"2.0"), [], False, id="another version"),
        pytest.param(GET.replace(b" HTTP/1.1", b""), [], False, id="no version"),
        pytest.param(GET.replace(b"GET", b"CONNECT") + GET, [b""], False, id="a tunnel's bytes"),
        pytest.param(GET[:-1], [], False, id="a head in part"),
    ],
)
def test_the_requests_that_bytes_hold_are_read_strictly(data: bytes, bodies: list[bytes], clean: bool) -> None:
    found, nothing_else = requests_in(data)
    assert [request.body for request in found] == bodies
    assert nothing_else is clean


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "method", "ended", "read"),
    [
        pytest.param(OK + b"Content-Length: 2\r\n\r\nab", b"GET", "", (b"ab", True), id="a length"),
        pytest.param(OK + b"Content-Length: 3\r\n\r\nab", b"GET", "closed", (b"ab", False), id="cut short"),
        pytest.param(OK + b"\r\nab", b"GET", "closed", (b"ab", True), id="until the end"),
        pytest.param(OK + b"\r\nab", b"GET", "reset", (b"ab", False), id="until a reset"),
        pytest.param(OK + b"\r\nab", b"GET", "", (b"ab", False), id="until an end that does not come"),
        pytest.param(OK + b"Content-Length: 3\r\n\r\n", b"HEAD", "", (b"", True), id="to a HEAD"),
        pytest.param(b"HTTP/1.1 204\r\n\r\nab", b"GET", "", (b"", True), id="no content"),
        pytest.param(
            b"HTTP/1.1 103 X\r\nX: y\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n", b"GET", "", (b"", True), id="interim"
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\n0\r\n\r\n", b"GET", "", (b"ab", False), id="a bad chunk"
        ),
        pytest.param(OK + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", b"GET", "", None, id="a second length"),
        pytest.param(OK + b"X: a\r\n b\r\n\r\n", b"GET", "closed", None, id="a folded line"),
        pytest.param(OK + b"X : a\r\n\r\n", b"GET", "closed", None, id="a space before the colon"),
        pytest.param(b"HTTP/1.1 101 X\r\n\r\n", b"GET", "closed", None, id="an upgrade"),
        pytest.param(b"HTTP/2.0 200 OK\r\n\r\n", b"GET", "closed", None, id="another version"),
    ],
)
def test_the_reply_that_bytes_hold_is_read_strictly(
    data: bytes, method: bytes, ended: str, read: tuple[bytes, bool] | None
) -> None:
    reply = reply_in(data, method, ended)
    assert (None if reply is None else (reply.body, reply.whole)) == read


# What docs/contract.md, Check, lets through, said a second time.

TE = b"Transfer-Encoding"
HOPS = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
CLIENT_ONLY = re.compile(
    rb"host|expect|authorization|cookie|forwarded|x-real-ip|proxy-.*|x-slproxy-.*|x-forwarded-.*", re.DOTALL
)
UPSTREAM_ONLY = re.compile(
    rb"set-cookie|strict-transport-security|alt-svc|clear-site-data|access-control-.*|proxy-authenticat(?:e|ion-info)",
    re.DOTALL,
)


def passing(fields: Fields, stops: re.Pattern[bytes]) -> Fields:
    """Return what is end-to-end. A name spelt with ``_`` for ``-`` may pass or stop: it is left out on both sides."""
    tokens = b",".join(value for name, value in fields if name.lower() == b"connection").lower()
    named = {token.strip().replace(b"_", b"-") for token in tokens.split(b",")} - {b"content-length"}

    def ends_here(name: bytes) -> bool:
        name = name.lower().replace(b"_", b"-")
        return name in HOPS or name in named or bool(stops.fullmatch(name))

    return [(name, value) for name, value in fields if not ends_here(name)]


def dotted(target: bytes) -> bool:
    """Tell whether a path has a dot segment, decoded once, with ``/`` and ``\\`` separating and ``;`` ending a name."""
    segments = re.split(rb"[/\\]", unquote_to_bytes(target.partition(b"?")[0]))
    return any(segment.partition(b";")[0] in (b".", b"..") for segment in segments)


# The two ends.


class Client(asyncio.Protocol):
    """A connection to the proxy: what came back on it, and how it ended."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = ""
        self.transport: asyncio.Transport
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._news.set()

    def eof_received(self) -> None:
        self.ended = "closed"

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.ended or ("reset" if exc is not None else "left")
        self._news.set()

    async def send(self, pieces: Sequence[bytes], pause: int) -> None:
        """Write the pieces, and let the loop turn in between, so that they are read one by one."""
        for piece in pieces:
            if self.transport.is_closing():
                return
            self.transport.write(piece)
            for _ in range(pause):
                await asyncio.sleep(0)

    async def until(self, done: Callable[[], bool]) -> bool:
        """Wait for what is ``done``, or for the end; ``False`` is a hang."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not (self.ended or done()):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def leave(self) -> None:
        """Close with RST: twenty thousand connections in TIME_WAIT are most of the ports there are."""
        reset(self.transport)


def reset(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        peer = transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def plain(target: bytes) -> bytes:
    """Return a request that is as it should be, and that is sent once."""
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\nX-Slproxy-Retry: off\r\n\r\n" % target


# What a plain request may get once: a pooled connection that ended as it went out, or a machine too busy for SILENCE.
RACE = re.compile(rb"HTTP/1.[01] 50(?:2 .*error=connection_terminated|4 )", re.DOTALL)


@dataclass
class Seen:
    """A request that reached the upstream, or what reached it of one that was cut off."""

    raw: bytes
    wire: Wire | None


class Recorder(asyncio.Protocol):
    """A connection of the upstream: reads by the strict rules, records, and answers each request with its number."""

    def __init__(self, seen: list[Seen], unfinished: set[Recorder], play: Play | None = None) -> None:
        self.seen, self.unfinished, self.play = seen, unfinished, play
        self.buffer = b""
        self.transport: asyncio.Transport
        self.playing: ReplyCase | None = None
        # Whether the request in hand has its answer, and whether more of it is to come.
        self.answered = self.asking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.unfinished.add(self)
        while self.buffer:
            try:
                request = read_request(self.buffer, 0)
            except MalformedError:
                return  # what is left over when the connection ends is told then
            if request is None:
                return
            self.asking = not request.whole
            if self.play is not None and not self.answered:
                case = self.play(request)
                if case is not None:
                    self.answered, self.playing = True, case
                    self._turn(case, 0)
            if not request.whole:
                return
            raw, self.buffer = self.buffer[: request.end], self.buffer[request.end :]
            self.seen.append(Seen(raw, request))
            if not self.answered:
                self.playing = None
                body = b"%d" % (len(self.seen) - 1)
                head = b"HTTP/1.1 200 OK\r\nX-Serial: %b\r\nContent-Length: %d\r\n\r\n" % (body, len(body))
                self.transport.write(head if request.first[1] == b"HEAD" else head + body)
            self.answered = False
        self.unfinished.discard(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.unfinished.discard(self)
        self.playing = None
        if self.buffer:
            try:
                wire = read_request(self.buffer, 0)
            except MalformedError:
                wire = None
            self.seen.append(Seen(self.buffer, wire))

    def _turn(self, case: ReplyCase, at: int) -> None:
        """Write the next piece of a reply, unless the next request is here: then the proxy took it for finished.

        More of the reply would then be lost on any proxy, for HTTP/1.1 does not say whose it is.
        """
        if self.playing is not case or self.transport.is_closing():
            return
        if at and readable(self.transport):
            if self.asking:
                self._later(0, lambda: self._turn(case, at))
            return
        pieces = [*case.pieces, case.late] if case.late else case.pieces
        last = at >= len(pieces) - 1
        if at < len(pieces):
            self.transport.write(pieces[at])
        # Where the connection could be used again its end goes out with the reply; later, the next request meets it.
        if not last or (at < len(pieces) and case.end != "keep" and not case.whole):
            turns = case.pause + (20 if case.late and at == len(case.pieces) - 1 else 0)
            self._later(turns, lambda: self._turn(case, at + 1))
        elif case.end == "close":
            self.transport.close()
        elif case.end == "reset":
            reset(self.transport)

    def _later(self, turns: int, then: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(then if turns == 0 else lambda: self._later(turns - 1, then))


def readable(transport: asyncio.Transport) -> bool:
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Listener(logging.Handler):
    """Reads the log, and whatever the loop complains of."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._form = logging.Formatter("%(name)s %(levelname)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        text = self._form.format(record)
        foreign = not record.name.startswith("slproxy") and record.levelno >= logging.WARNING
        if foreign or record.levelno >= logging.ERROR or "a defect in slproxy" in text:
            self._tell(f"the log complains: {text}")
        if API_KEY in text:
            self._tell(f"the log tells the API key: {text}")
        if not record.getMessage().isprintable():
            self._tell(f"the log has what a terminal obeys: {record.getMessage()!r}")

    def complaint(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._tell(f"the loop complains: {context}")


@contextmanager
def listening(tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the loop and the log to silence."""
    listener, loop = Listener(tell), asyncio.get_running_loop()
    everyone, ours = logging.getLogger(), logging.getLogger("slproxy")
    before = ours.level, ours.propagate
    loop.set_exception_handler(listener.complaint)
    everyone.addHandler(listener)
    ours.addHandler(listener)
    # Not to pytest as well, which would keep ten thousand lines and print them beside the one that matters.
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
        gc.collect()  # a future whose exception nobody took complains when it goes
    finally:
        ours.setLevel(before[0])
        ours.propagate = before[1]
        ours.removeHandler(listener)
        everyone.removeHandler(listener)
        loop.set_exception_handler(None)


class Arena:
    """A proxy between its upstream and its clients, and what was found wrong."""

    def __init__(
        self, app: App, journal: io.StringIO, seen: list[Seen], unfinished: set[Recorder], wrong: list[str]
    ) -> None:
        self.app, self.seen, self.unfinished, self.wrong = app, seen, unfinished, wrong
        self.port = port_of(app.urls[0])
        self._journal = journal
        # The ids of the requests that the access log has told of.
        self._logged: Counter[str] = Counter()
        self._ticks = itertools.count(1)
        self._turn = asyncio.Lock()
        self._begun = 0

    def tell(self, what: str) -> None:
        self.wrong.append(what)

    async def connect(self) -> Client:
        _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", self.port)
        return client

    async def settle(self, turns: int = 3) -> None:
        """Return when plain requests that were sent from now on have been answered: the proxy has read what is there.

        Those who ask at the same time share the requests.
        """
        for _ in range(turns):
            asked = next(self._ticks)
            async with self._turn:
                if self._begun < asked:
                    self._begun = next(self._ticks)
                    await self.alive()

    async def alive(self) -> None:
        """Fail unless a plain request gets a plain answer."""
        for attempt in range(2):
            client = await self.connect()
            await client.send([plain(b"/v2/alive")], 0)
            answered = await client.until(lambda client=client: b"\r\n\r\n" in client.data)  # type: ignore[misc]
            client.leave()
            assert answered, "the proxy does not answer any more"
            if attempt or not RACE.match(client.data):
                break
        assert client.data.startswith(b"HTTP/1.1 200 "), client.data

    async def quiet(self) -> None:
        """Wait until nothing of the clients is under way in the proxy, nor between it and the upstream."""
        assert self.app.server is not None
        server = self.app.server
        await until(lambda: server.in_flight == 0)
        await until(lambda: not self.unfinished)
        await self.settle()

    def read_journal(self) -> None:
        text = self._journal.getvalue()
        if API_KEY in text:
            self.tell("the access log tells the API key")
        for line in text.split("\n")[:-1]:
            fields = json.loads(line)
            self._logged[fields["id"]] += 1
            if fields["attempts"] > 1 or fields.get("error") == "internal-error" or not line.isprintable():
                self.tell(f"the access log has {line}")
        self._journal.seek(0)
        self._journal.truncate()

    def compare(self, audit: Path) -> None:
        """Hold the audit to a line for each request that the access log has told of."""
        text = audit.read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        audited = Counter(line["id"] for line in lines if line["kind"] == "request")
        if differing := (audited - self._logged) + (self._logged - audited):
            self.tell(f"the audit and the access log differ in {differing}")
        if API_KEY in text:
            self.tell("the audit tells the API key")

    def judged(self, *, end: bool = False) -> None:
        """Fail with what was found wrong, once it is enough, or the ``end``."""
        if self.wrong and (end or len(self.wrong) >= TOLD):
            pytest.fail(f"{len(self.wrong)} found wrong:\n\n" + "\n\n".join(self.wrong[:TOLD]), pytrace=False)


@asynccontextmanager
async def arena(play: Play | None = None) -> AsyncIterator[Arena]:
    """Run an upstream and a proxy that sends a request once, and hold the loop and the log to silence."""
    loop = asyncio.get_running_loop()
    seen: list[Seen] = []
    unfinished: set[Recorder] = set()
    upstream = await loop.create_server(lambda: Recorder(seen, unfinished, play), "127.0.0.1", 0)
    settings = settings_for(f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}")
    settings = replace(
        settings,
        # One attempt: whatever comes up twice is a defect then.
        retry=RetrySettings(attempts=1),
        pace=PaceSettings(mode="off"),
        # Small, so that what is over them is cheap to send.
        limits=LimitSettings(max_target=2048, max_headers=8192, replay_memory=2048, replay_disk=8192),
        upstream=replace(
            settings.upstream,
            max_connections=AT_ONCE + 10,
            response_timeout=SILENCE if play else PATIENCE,
            idle_timeout=SILENCE if play else PATIENCE,
        ),
    )
    before = asyncio.all_tasks()
    wrong: list[str] = []
    with listening(wrong.append), tempfile.TemporaryDirectory() as folder:
        journal, audit = io.StringIO(), Path(folder, "audit")
        settings = replace(settings, log=LogSettings(audit=audit))
        async with App(settings, listeners=[AccessLog(journal, pretty=False, colour=False)]) as app:
            await app.listen()
            fight = Arena(app, journal, seen, unfinished, wrong)
            try:
                yield fight
                await fight.quiet()
            finally:
                upstream.close()
        with contextlib.suppress(TimeoutError):
            await until(lambda: asyncio.all_tasks() <= before)
        wrong.extend(f"a task is left: {task}" for task in asyncio.all_tasks() - before)
        fight.read_journal()
        fight.compare(audit)
    fight.judged(end=True)


# Cases. Each is made from its number alone.


def numbers(kind: str, count: int) -> Sequence[int]:
    """Return the numbers of the cases to run: ``count``, or those that the environment asks for."""
    wanted, _, some = os.environ.get("FUZZ_CASE", "").partition(":")
    if not wanted:
        return range(count)
    first, _, last = some.partition("-")
    return range(int(first), int(last or first) + 1) if wanted == kind else ()


SPECIAL = [
    bytes([each]) for each in b"\0\r\n\t :;,%/\\#?@[]\"'()<>{}=&+-_.*\x01\x0b\x0c\x1b\x7f\x80\xa0\xc3\xff019aAzZ"
]
SPECIAL += [b"\r\n", b"\r\n ", b"\r\n\r\n", b"\n\n", b"\r\r\n", b"%00", b"%0d%0a", b"%2e%2e/", b"../", b"\xc3\xa9"]


def _flip(rng: random.Random, data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _insert(rng: random.Random, data: bytes, at: int) -> bytes:
    return data[:at] + rng.choice(SPECIAL) * rng.choice((1, 1, 1, 2, 5)) + data[at:]


def _overwrite(rng: random.Random, data: bytes, at: int) -> bytes:
    return data[:at] + rng.choice(SPECIAL) + data[at + 1 :]


def _delete(rng: random.Random, data: bytes, at: int) -> bytes:
    return data[:at] + data[at + rng.choice((1, 1, 2, 4, 16)) :]


def _repeat(rng: random.Random, data: bytes, at: int) -> bytes:
    return data[:at] + data[at : at + rng.choice((1, 2, 8, 32))] * 2 + data[at:]


def _cut(rng: random.Random, data: bytes, at: int) -> bytes:
    return data[: max(at, 1)]


def _end_lines(rng: random.Random, data: bytes, at: int) -> bytes:
    new = rng.choice((b"\n", b"\r", b"\n\r", b"\r\r\n", b" \r\n", b"\0\r\n", b""))
    return data.replace(b"\r\n", new, rng.choice((1, 2, -1))) if at % 2 else new.join(data.rsplit(b"\r\n", 1))


def _number(rng: random.Random, data: bytes, at: int) -> bytes:
    new = rng.choice(
        (b"0", b"1", b"00", b"-1", b"+1", b"99999999999999999999", b"18446744073709551616", b"1e3", b"0x1")
    )
    return re.sub(rb"\d+", lambda _: new, data[:at], count=1) + data[at:] if at else data


Spoil = Callable[[random.Random, bytes, int], bytes]
SPOILS: list[Spoil] = [_flip, _flip, _insert, _insert, _insert, _overwrite, _delete, _repeat, _cut, _end_lines, _number]


def spoilt(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes with something done to them; oftener in the head than in a long body."""
    head = data.find(b"\r\n\r\n") + 4
    at = rng.randrange(head if head > 3 and rng.random() < 0.7 else len(data)) if data else 0
    return rng.choice(SPOILS)(rng, data, at) if data else data


def in_pieces(rng: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2, 4))))
    return [piece for start, end in itertools.pairwise([0, *cuts, len(data)]) if (piece := data[start:end])]


def in_chunks(rng: random.Random, body: bytes, trailers: bytes = b"") -> bytes:
    out, at = b"", 0
    while at < len(body):
        size = rng.randint(1, len(body) - at)
        form = rng.choice((b"%x", b"%X", b"%04x", b"%x;a=b", b'%x;q="\\"x;"', b"%x"))
        out += form % size + b"\r\n" + body[at : at + size] + b"\r\n"
        at += size
    return out + b"0\r\n" + trailers + b"\r\n"


BODIES = [
    b"{}", b"a", b'{"name": "Jos\xc3\xa9"}', bytes(range(256)), b"\r\n\r\n", b"0\r\n\r\n", b"x" * 3000,
    b"\x1f\x8b\0" * 9,
]  # fmt: skip
BAD_CHUNKS = [
    b"0x2\r\nab\r\n0\r\n\r\n", b"-2\r\nab\r\n0\r\n\r\n", b"+2\r\nab\r\n0\r\n\r\n", b"2 \r\nab\r\n0\r\n\r\n",
    b" 2\r\nab\r\n0\r\n\r\n", b"2\nab\n0\n\n", b"2\r\nab\n0\r\n\r\n", b"2\r\nabc\r\n0\r\n\r\n",
    b"3\r\nab\r\n0\r\n\r\n", b"2\r\nab0\r\n\r\n", b"2;\nx\r\nab\r\n0\r\n\r\n", b"2;a=\0\r\nab\r\n0\r\n\r\n",
    b"2;a\rb\r\nab\r\n0\r\n\r\n", b"2;" + b"a" * 9000 + b"\r\nab\r\n0\r\n\r\n", b"g\r\nab\r\n0\r\n\r\n",
    b"\r\nab\r\n0\r\n\r\n", b"0000000000000000000002\r\nab\r\n0\r\n\r\n", b"ffffffffffffffff\r\nab\r\n0\r\n\r\n",
    b"10000000000000002\r\nab\r\n0\r\n\r\n", b"7fffffffffffffff\r\nab", b"2\r\nab\r\n", b"2\r\nab\r\n0\r\n",
    b"2\r\nab\r\n0\r\nX: y\r\n", b"2\r\nab\r\n00\r\n\r\n",
    b"2\r\nab\r\n0\r\nContent-Length: 9\r\nAuthorization: Bearer t\r\n\r\n", b"2\r\nab\r\n0\r\nX\r\n\r\n",
    b"2\r\nab\r\n0\r\nX : y\r\n\r\n", b"2\r\nab\r\n0\r\nX: y\r\n z\r\n\r\n", b"2\r\nab\r\n0\r\nX: a\0b\r\n\r\n",
    b"2\r\nab\r\n0\n\n", b"0\r\n\r\n", b"",
]  # fmt: skip
FRAMINGS = [
    b"Content-Length: 2", b"Content-Length: 0", b"Content-Length: 02", b"Content-Length: +2", b"Content-Length: -1",
    b"Content-Length: 0x2", b"Content-Length: 2, 2", b"Content-Length: 2,3", b"Content-Length: 2 2",
    b"Content-Length: 2;", b"Content-Length:", b"Content-Length: 1.0", b"Content-Length: \xb2",
    b"Content-Length: 18446744073709551618", b"Content-Length: 99999999999999999999", b"Content-Length : 2",
    b"Content-Length\t: 2", b"Content_Length: 2", b"content-length: 3", b"Transfer-Encoding: chunked",
    b"transfer-encoding: CHUNKED", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked,", b'Transfer-Encoding: "chunked"', b"Transfer-Encoding:",
    b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: chunked\x0b", b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding : chunked", b"Transfer_Encoding: chunked", b"Transfer-Encoding\0: chunked",
    b"Transfer-Encoding:\r\n chunked", b"X: y\r\n Transfer-Encoding: chunked", b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
]  # fmt: skip

TARGETS = [
    b"/v2/{}", b"/v2/{}.json?page=2&per_page=100", b"/v2/{}?x=%2F%2f&y=a+b&z=%zz&&q=[]|^",
    b"/v2/{}/a%2Db%20c%C3%A9~%7e", b"/v2/%252e%252e/{}", b"/v2/{};v=1/x:y@z!$&'()*+,=",
    b"/v2/{}/...?next=http://x/../y", b"/v2//{}/", b"http://localhost/v2/{}?a", b"HTTP://127.0.0.1:8642/v2/{}",
]  # fmt: skip
BAD_TARGETS = [
    b"/v2/../{}", b"/v2/./{}", b"/v2/{}/..", b"/v2/%2e%2e/{}", b"/v2/.%2E/{}", b"/v2/..%2f{}", b"/v2/..%5c{}",
    b"/v2/..\\{}", b"/v2/..;/{}", b"/v2/%2e%3b/{}", b"/v2/{}#x", b"/v2/{}?a#b", b"/v2/{}%00", b"/v2/{}%0d%0aX:%20y",
    b"/v2/{}%zz", b"/v2/{}%", b"//evil.test/v2/{}", b"///v2/{}", b"/v1/{}", b"/v2", b"/V2/{}", b"/oauth/token?{}",
    b"/_slproxy/healthz?{}", b"/_slproxy/status.json?{}", b"/_slproxy/../v2/{}", b"*", b"v2/{}", b"evil.test:443",
    b"http://evil.test/v2/{}", b"http://localhost@evil.test/v2/{}", b"http://localhost:99999/v2/{}",
    b"https://localhost/v2/{}", b"http://localhost", b"http://localhost?/v2/{}", b"http://localhost#/v2/{}",
    b"http://[::1]/v2/{}", b"http://[::1/v2/{}", b"http:///v2/{}", b"http:/v2/{}", b"ftp://localhost/v2/{}",
    b"http://localhost/v2/../{}", b"http://localhost//v2/{}", b"/v2/{}?" + b"a" * 2100, b"/v2/{}/" + b"a" * 9000,
    b"/v2/\xc3\xa9{}", b"/v2/\xff{}", b"/v2/{}?\xff", b"/v2/{}?q=\xe2\x82\xac", b"/v2/{} ?a", b"/v2/{}?a b",
    b"/v2/{}\tx",
]  # fmt: skip
METHODS = [b"GET"] * 6 + [b"POST"] * 6 + [b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS"]
BAD_METHODS = [
    b"TRACE", b"CONNECT", b"PRI", b"get", b"GET ", b"PROPFIND", b"G", b"", b"GET\t", b"POST\0", b"QUERY", b"M-SEARCH",
]  # fmt: skip
VERSIONS = [
    b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.10", b"http/1.1", b"HTTP/1.1 ", b"HTTP/01.1", b"",
    b"X",
]  # fmt: skip
LINES = [
    b"Accept: */*", b"Accept-Encoding: gzip, br", b"User-Agent: curl/8.5.0", b"Content-Type: application/json",
    b"X-Same: 1", b"X-Same: 2", b"x-same: 3", b"X-Empty:", b"X-Spaces: \t  a b \t ",
    b"X-UTF8: Jos\xc3\xa9 \xe2\x82\xac", b'If-None-Match: "a", W/"b"', b"Prefer: wait=5", b"Via: 1.1 other",
    b"Cookie: session=1", b"Authorization: Bearer stolen", b"Authorization: Basic dTpw",
    b"AUTHORIZATION: Bearer third", b"Authorization_: x", b"Proxy-Authorization: Basic dTpw", b"X-Slproxy-Retry: off",
    b"X-Slproxy-Priority: bulk", b"X-Slproxy-Key: guess", b"X-Forwarded-For: 10.0.0.1", b"X_Forwarded_For: 10.0.0.1",
    b"Forwarded: for=10.0.0.1", b"X-Real-IP: 10.0.0.1", b"TE: trailers", b"Trailer: X-Sum", b"Keep-Alive: timeout=5",
    b"Connection: keep-alive", b"Connection: X-Same, X-Empty", b"Connection: Authorization, Host, Content-Length, Via",
    b"Connection:", b"Connection: ,,te;q=1,",
]  # fmt: skip
ODD_LINES = [
    b"Connection: close", b"Connection: close, X-Same", b"Connection: upgrade\r\nUpgrade: websocket",
    b"Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk", b"Expect: 100-continue",
    b"Expect: 100-Continue", b"Expect: nothing", b"Host: evil.test", b"Host: localhost", b"Host: localhost:99999",
    b"Host: localhost\tx", b"Host:", b"Origin: http://evil.test", b"Origin: null", b"Sec-Fetch-Site: cross-site",
    b"Via: 1.1 a, 1.1 b;x", b"Authorization : Bearer x", b"Authorization: Bearer x\r\n y",
    b"Proxy_Connection: keep-alive", b"X-Slproxy-Retry: OFF, x", b"Sec-WebSocket-Key1: x", b"X A: b", b": x", b":",
    b"X", b"X: a\r\n b", b"X: a\r\n\tb", b"X: a\0b", b"X: a\rb", b"X: a\nAuthorization: Bearer x", b"X: a\x0bb",
    b"X: a\x7fb", b"X: \xff\xfe", b"X\xc3\xa9: y", b"X\x7f: y", b"X(: y", b'"X": y', b"X: " + b"a" * 9000,
    b"X" * 9000 + b": a", b"\r\n".join(b"X-%d: a" % each for each in range(1500)), b"Content-Encoding: gzip",
    b"Content-Encoding: \xff", b"Content-Type: \r\n", b"Content-Type: a\r\nContent-Type: b", b"User-Agent:",
    b" X: leading space", b"\tX: leading tab",
]  # fmt: skip


@dataclass
class RequestCase:
    """What one client sends, and whether it then waits, closes its side ("half") or is gone ("reset")."""

    index: int
    pieces: list[bytes]
    pause: int
    end: str
    # Nothing was done to it: it has to pass.
    plain: bool
    # A plain request for the same connection, once there is an answer; those that were sent are among the pieces.
    then: bytes

    @property
    def raw(self) -> bytes:
        return b"".join(self.pieces)

    def __str__(self) -> str:
        return f"FUZZ_CASE=requests:{self.index} ({self.end}) {self.pieces!r}"


def a_request(rng: random.Random, marker: bytes, strange: int) -> bytes:
    """Return a request with ``strange`` things done to its parts."""
    method, version = rng.choice(METHODS), b"HTTP/1.1"
    target = rng.choice(TARGETS)
    lines = [b"Host: " + rng.choice((b"localhost", b"127.0.0.1:8642", b"[::1]"))]
    lines += rng.sample(LINES, rng.randrange(5))
    body = rng.choice(BODIES)
    framing = rng.choice(("none", "none", "length", "chunks")) if method in (b"GET", b"HEAD", b"OPTIONS") else (
        rng.choice(("none", "length", "length", "chunks", "chunks"))
    )  # fmt: skip
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        body = in_chunks(
            rng, body, rng.choice((b"", b"", b"X-Sum: 1\r\n", b"Authorization: Bearer x\r\nX-Host: y\r\n"))
        )
    else:
        body = b""
    if rng.random() < 0.06 and framing != "none":
        lines.append(b"Expect: 100-continue")
    for _ in range(strange):
        match rng.randrange(12):
            case 0 | 1:
                target = rng.choice(BAD_TARGETS)
            case 2:
                method, version = rng.choice(((rng.choice(BAD_METHODS), version), (method, rng.choice(VERSIONS))))
            case 3 | 4:
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(ODD_LINES))
            case 5 | 6:
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(FRAMINGS))
            case 7:
                old = [at for at, line in enumerate(lines) if line.startswith((b"Content-L", b"Transfer-E"))]
                lines[old[0] if old else 0] = rng.choice(FRAMINGS)
            case 8:
                lines = [line for line in lines if not line.startswith((b"Content-L", b"Transfer-E"))]
                lines.append(b"Transfer-Encoding: chunked")
                body = rng.choice(BAD_CHUNKS)
            case 9 if len(lines) > 1:
                a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[a], lines[b] = rng.choice(((lines[b], lines[a]), (lines[a], lines[a]), (lines[b], b"")))
            case 10:
                body += b"GET /v2/smuggled-%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % marker
            case _:
                body = rng.choice((body[:-1], body[: len(body) // 2], body * 2, rng.choice(BODIES), b"\r\n" + body))
    first = b"%b %b %b" % (method, target.replace(b"{}", marker), version)
    return b"\r\n".join([first, *lines, b"", b""]) + body


def request_case(index: int) -> RequestCase:
    rng = random.Random(f"{SEED}:requests:{index}")
    marker = b"c%07d" % index
    done = rng.choices((0, 1, 2, 3, 6), (6, 44, 28, 14, 8))[0]
    strange = sum(rng.random() < 0.55 for _ in range(done))
    raw = a_request(rng, marker, strange)
    if rng.random() < 0.15:
        raw += a_request(rng, marker + b"n", rng.choice((0, 0, 1)) if done else 0)
    if rng.random() < 0.03:
        raw = b"\r\n" + raw
    for _ in range(done - strange):
        raw = spoilt(rng, raw)
    end = rng.choices(("wait", "half", "reset"), (88, 7, 5))[0]
    then = plain(b"/v2/%bt" % marker) if rng.random() < 0.3 else b""
    return RequestCase(index, in_pieces(rng, raw), rng.choice((0, 1, 3)), end, not done and end == "wait", then)


# Requests.


async def test_whatever_a_client_sends_no_more_than_it_means_goes_up(request: pytest.FixtureRequest) -> None:
    count = int(request.config.getoption("--fuzz") * 0.6)
    went_up = 0
    todo = numbers("requests", count)
    async with arena() as fight:
        for start in range(0, len(todo), ROUND):
            cases = [request_case(index) for index in todo[start : start + ROUND]]
            fight.seen.clear()
            clients = await at_once(functools.partial(send_request, fight), cases)
            await fight.quiet()
            for case, client in zip(cases, clients, strict=True):
                for what in wrong_with_answers(case, client, fight.seen):
                    fight.tell(f"{what}\n  {case}\n  {client.ended} {client.data[:2000]!r}")
            for what in wrong_upstream(cases, fight.seen):
                fight.tell(what)
            went_up += sum(seen.wire is not None for seen in fight.seen)
            fight.read_journal()
            fight.judged()
    assert went_up > len(todo) // 5 or len(todo) < ROUND, "most requests were refused: the search sees too little"


async def at_once(run: Callable[[Case], Awaitable[Result]], cases: Sequence[Case]) -> list[Result]:
    """Run the cases, ``AT_ONCE`` at a time; return what came of them, in order."""
    results: dict[int, Result] = {}
    todo = iter(enumerate(cases))

    async def worker() -> None:
        for index, case in todo:
            results[index] = await run(case)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())
    return [results[index] for index in range(len(cases))]


async def send_request(fight: Arena, case: RequestCase) -> Client:
    """Play a case; return its connection, ended by one side or the other."""
    meant, clean = requests_in(case.raw)
    answerable = case.end == "wait" and clean and bool(meant)
    client = await fight.connect()
    await client.send(case.pieces, case.pause)
    if case.end == "wait" and not answerable:
        await fight.settle()
    elif answerable and await answered(fight, case, client) and case.then and not client.ended:
        case.pieces.append(case.then)
        await client.send([case.then], 0)
        await answered(fight, case, client)
    if case.index % 20 == 0:
        await fight.settle(1)  # more may come than was waited for
    if case.end == "half" or (case.end == "wait" and not answerable):
        with contextlib.suppress(OSError):
            client.transport.write_eof()
        if not await client.until(lambda: False):
            fight.tell(f"a half-closed connection that does not end\n  {case}\n  {client.data!r}")
    client.leave()
    return client


async def answered(fight: Arena, case: RequestCase, client: Client) -> bool:
    """Wait for as many answers as requests; tell whether the connection goes on."""
    meant, _ = requests_in(case.raw)
    if not await client.until(lambda: len(answers_in(client, meant).finals) >= len(meant)):
        fight.tell(f"no answer to a whole request\n  {case}\n  {client.data!r}")
        return False
    finals = answers_in(client, meant).finals
    return bool(finals) and finals[-1].all(b"connection") != [b"close"]


@dataclass
class Answers:
    """What a client got: the replies, those of them that are final, and whatever is left that is none."""

    finals: list[Wire] = field(default_factory=list)
    # With the number of the request that they are for.
    interim: list[tuple[int, Wire]] = field(default_factory=list)
    rest: bytes = b""
    malformed: bool = False


def answers_in(client: Client, meant: Sequence[Wire]) -> Answers:
    """Read what came back for these requests."""
    found, at = Answers(), 0
    while at < len(client.data):
        request = meant[len(found.finals)] if len(found.finals) < len(meant) else None
        method = b"GET" if request is None else request.first[1]
        try:
            wire = read_reply(client.data, at, method=method, ended=client.ended)
        except MalformedError:
            found.malformed = True
            break
        if wire is not None and request is None and not wire.body and is_problem(wire):
            wire.whole = True  # to a HEAD that is no request for another reason
        if wire is None or not wire.whole:
            break
        at = wire.end
        if wire.status < 200:
            found.interim.append((len(found.finals), wire))
            continue
        found.finals.append(wire)
        if method == b"HEAD" and is_problem(wire) and wire.all(b"connection") and client.data[at : at + 1] == b"{":
            at = client.data.find(b"\n", at) + 1  # refused before it was known as a HEAD: the connection ends with it
    found.rest = client.data[at:]
    return found


def is_problem(wire: Wire) -> bool:
    return any(value.startswith(b"slproxy; error=") for value in wire.all(b"proxy-status"))


def wrong_with_problem(wire: Wire, *, bodiless: bool) -> Iterator[str]:
    if wire.status == 500:
        yield "a 500"
    if wire.all(b"content-type") != [b"application/problem+json"]:
        yield "a problem that is no problem+json"
    if wire.whole and not wire.body.startswith(b'{"type": "') and (wire.body or not bodiless):
        yield "a problem without its document"
    elif wire.whole and wire.body and json.loads(wire.body)["status"] != wire.status:
        yield "a problem of another status"


def wrong_with_answers(case: RequestCase, client: Client, seen: Sequence[Seen]) -> Iterator[str]:
    """Yield what is wrong with what a client got."""
    meant, _ = requests_in(case.raw)
    answers = answers_in(client, meant)
    if KEY in client.data:
        yield "the client is told the API key"
    if answers.malformed:
        yield "an answer that is no valid HTTP"
    if answers.rest and case.end == "wait":
        yield "an answer that is not whole"
    if len(answers.finals) > sum(each.whole for each in meant) + 1:
        yield "more answers than requests"
    for at, interim in answers.interim:
        expected = at < len(meant) and b"100-continue" in [each.lower() for each in meant[at].all(b"expect")]
        if interim.status != 100 or not expected:
            yield "an interim reply that nobody asked for"
    for at, wire in enumerate(answers.finals):
        request = meant[at] if at < len(meant) else None
        bodiless = request is None or request.first[1] == b"HEAD"
        if is_problem(wire):
            yield from wrong_with_problem(wire, bodiless=bodiless)
            continue
        serial = wire.all(b"x-serial")
        if request is None or (not serial and not request.key[1].startswith(b"/_slproxy/")):
            yield "an answer of nobody's"
        elif serial:
            record = seen[int(serial[0])].wire
            if record is None or record.key != request.key or (wire.body != serial[0] and not bodiless):
                yield "the answer to another request"
    if case.plain:
        closes = bool(answers.finals) and answers.finals[-1].all(b"connection") == [b"close"]
        if (len(answers.finals) < len(meant) and not closes) or any(each.status != 200 for each in answers.finals):
            yield "a plain request that is refused"


def wrong_upstream(cases: Sequence[RequestCase], seen: Sequence[Seen]) -> Iterator[str]:
    """Yield what is wrong with what reached the upstream: each must be one of those meant, and none twice."""
    left: dict[tuple[bytes, bytes], list[Wire]] = {}
    for case in cases:
        for meant in requests_in(case.raw)[0]:
            left.setdefault(meant.key, []).append(meant)
    for each in seen:
        if each.wire is not None and each.wire.key[1] == b"/v2/alive":
            continue
        target = each.raw.split(b" ")[1]
        marker = re.search(rb"c[0-9]{7}", target)
        likely = [case for case in cases if (marker[0] if marker else target) in case.raw][:3]
        whose = "".join(f"\n  {case}" for case in likely) or "\n  (no case has such a target)"
        for what in wrong_with_request(each, left):
            yield f"{what}\n  upstream: {each.raw[:2000]!r}{whose}"


def wrong_with_request(seen: Seen, left: dict[tuple[bytes, bytes], list[Wire]]) -> Iterator[str]:
    wire = seen.wire
    if wire is None:
        yield "no valid HTTP/1.1 upstream"
        return
    target = wire.first[2]
    if not target.startswith(b"/v2/") or dotted(target) or b"#" in target:
        yield "a target that is not accepted"
    if wire.first[3] != b"1":
        yield "another version than HTTP/1.1"
    names = Counter(name.lower().replace(b"_", b"-") for name, _ in wire.fields)
    if wire.all(b"authorization") != [b"Bearer " + KEY] or names[b"authorization"] != 1:
        yield "not our one Authorization"
    stray = [name for name, _ in wire.fields if name.lower() in HOPS or CLIENT_ONLY.fullmatch(name.lower())]
    if sorted(name.lower() for name in stray)[:2] != [b"authorization", b"host"] or stray[2:] not in ([], [TE]):
        yield "what is the client's alone"
    if names[b"host"] != 1 or not re.fullmatch(rb"127\.0\.0\.1:[0-9]+", wire.all(b"host")[0]):
        yield "not our one Host"
    for meant in left.get(wire.key, ()):
        if is_what_was_meant(wire, meant):
            left[wire.key].remove(meant)
            return
    yield "a request that no client sent, or not so, or not so often"


def is_what_was_meant(wire: Wire, meant: Wire) -> bool:
    fields = passing(wire.fields, CLIENT_ONLY)
    if (
        not fields
        or not re.fullmatch(rb"Via: 1\.1 slproxy-[0-9a-f]+", b": ".join(fields.pop()))
        or fields != passing(meant.fields, CLIENT_ONLY)
    ):
        return False
    return meant.whole and wire.body == meant.body if wire.whole else meant.body.startswith(wire.body)


# Replies.

STATUSES = [b"200 OK"] * 12 + [
    b"201 Created", b"202 Accepted", b"203 ", b"204 No Content", b"205 Reset Content", b"206 Partial Content",
    b"301 Moved Permanently", b"302 Found", b"304 Not Modified", b"400 Bad Request", b"401 Unauthorized",
    b"404 Not Found", b"422 Unprocessable Entity", b"429 Too Many Requests", b"500 Internal Server Error",
    b"502 Bad Gateway", b"503 Service Unavailable", b"504 Gateway Timeout", b"299 Jos\xc3\xa9", b"599 a  b\tc",
]  # fmt: skip
ODD_STARTS = [
    b"HTTP/1.1 200", b"HTTP/1.1 204", b"HTTP/1.0 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 200  OK",
    b"HTTP/1.1 200 OK ", b"HTTP/1.1\t200\tOK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 20x OK",
    b"HTTP/1.1 -200 OK", b"HTTP/1.1 000 X", b"HTTP/1.1 099 X", b"HTTP/1.1 600 X", b"HTTP/1.1 999 X",
    b"HTTP/1.1 100 Continue", b"HTTP/1.1 199 X",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket",
    b"HTTP/1.1 101 Switching Protocols", b"HTTP/2.0 200 OK", b"HTTP/2 200", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK",
    b"HTTP/1.10 200 OK", b"http/1.1 200 OK", b" HTTP/1.1 200 OK", b"\r\nHTTP/1.1 200 OK", b"ICY 200 OK",
    b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\nX: K", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 \xff", b"HTTP/1.1 200 \x1b[2J",
    b"HTTP/1.1 200 " + b"a" * 70000, b"200 OK", b"", b"<html>", b"\x16\x03\x03\0\x7a",
]  # fmt: skip
INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\nX-Interim: yes\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nX: a\0\r\n\r\n",
    b"HTTP/1.1 199 What\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 40, b"HTTP/1.1 100\r\n\r\n",
]  # fmt: skip
REPLY_LINES = [
    b"Content-Type: application/json; charset=utf-8", b"Date: Tue, 01 Dec 2026 10:00:00 GMT", b"Server: nginx",
    b'ETag: W/"abc"', b"Vary: Accept, Origin", b"x-ratelimit-endpoint-cost: 1", b"x-ratelimit-remaining-minute: 599",
    b"x-ratelimit-remaining-minute: \xc2\xb2", b"x-ratelimit-remaining-minute: 99999999999999999999999",
    b"x-ratelimit-limit-minute: -1", b"X-Same: 1", b"X-Same: 2", b"x-same: 3", b"X-Empty:", b"X-Spaces: \t a  b \t ",
    b"X-UTF8: Jos\xc3\xa9 \xe2\x82\xac", b"Via: 1.1 vegur", b"Server-Timing: db;dur=5", b"Content-Encoding: gzip",
    b"Content-Encoding: br", b"Set-Cookie: a=b", b"Set-Cookie: c=d; Path=/", b"Access-Control-Allow-Origin: *",
    b"Access-Control-Allow-Credentials: true", b"Strict-Transport-Security: max-age=31536000", b'Alt-Svc: h3=":443"',
    b'Clear-Site-Data: "*"', b"Proxy-Authenticate: Basic", b"Retry-After: 1",
    b"Retry-After: Tue, 01 Dec 2026 10:00:00 GMT", b"Retry-After: -1", b"Location: /v2/other",
    b"Location: {origin}/v2/other?a#b", b"Location: {origin}", b"Location: //evil.test/",
    b"Location: https://evil.test/v2/a", b"Location: HTTP://LOCALHOST/", b"Location: http://[::1",
    b"Keep-Alive: timeout=5", b"Connection: keep-alive", b"Connection: close", b"Connection: X-Same, x-empty",
    b"Connection: Content-Length, Content-Type, Via", b"Connection: ,,", b"Trailer: X-Sum", b"Upgrade: h2c",
]  # fmt: skip
ODD_REPLY_LINES = [
    b"X A: b", b"X : b", b": x", b"X", b" X: y", b"X: a\r\n b", b"X: a\r\n\tSet-Cookie: b", b"X: a\0b", b"X: a\rb",
    b"X: a\rSet-Cookie: b", b"X: a\nSet-Cookie: b", b"X: a\n b", b"X: a\x0bb", b"X: a\x7fb", b"X: a\x1b[2Jb",
    b"X: \xff\xfe", b"X\xff: y", b"X\0: y", b"X(): y", b"X-Long: " + b"a" * 30000, b"X-Long: " + b"a" * 70000,
    b"X" * 70000 + b": a", b"\r\n".join(b"X-%d: a" % each for each in range(200)),
    b"\r\n".join(b"X-%d: a" % each for each in range(1500)), b"Set_Cookie: a=b", b"Location: http://a\tb/",
    b"Location: {origin}\\@evil.test/", b"Location: {origin}@evil.test/", b"Location: \xff", b"Location:",
    b"Content-Encoding: \xff", b"Content-Type: a\r\nContent-Type: b", b"Connection: upgrade\r\nUpgrade: websocket",
    b"Content-Length: 1\r\nContent-Length: 1",
]  # fmt: skip


@dataclass
class ReplyCase:
    """What the upstream answers to ``asks``, and whether it then keeps the connection, closes or resets it."""

    index: int
    asks: bytes
    pieces: list[bytes]
    pause: int
    end: str
    # What the upstream sends on its own a little after a reply, and whether it answers before it has the whole request.
    late: bytes
    early: bool
    # Whether the reply ends by itself.
    whole: bool
    times: int = 0

    @property
    def raw(self) -> bytes:
        return b"".join(self.pieces)

    def __str__(self) -> str:
        shown = [piece if len(piece) < 3000 else piece[:3000] + b"[cut here]" for piece in self.pieces]
        then = f" then {self.late!r}" if self.late else ""
        return f"FUZZ_CASE=replies:{self.index} {self.asks!r}\n  -> {shown!r}{then} ({self.end}, early={self.early})"


Play = Callable[[Wire], ReplyCase | None]


def a_reply(rng: random.Random, marker: bytes, origin: bytes, strange: int, framing: str) -> bytes:
    """Return a reply with ``strange`` things done to its parts."""
    first = b"HTTP/1.1 " + rng.choice(STATUSES)
    lines = [b"X-Marker: " + marker, *rng.sample(REPLY_LINES, rng.randrange(6))]
    body = rng.choice((b"", b"{}", (b"<%b>" % marker) * 3, (b"<%b>" % marker) * 3, (b"<%b>" % marker) * 4000))
    before = rng.choice(INTERIM) if rng.random() < 0.08 else b""
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        body = in_chunks(rng, body, rng.choice((b"", b"X-Sum: 1\r\n", b"Set-Cookie: a=b\r\nContent-Length: 5\r\n")))
    for _ in range(strange):
        match rng.randrange(10):
            case 0 | 1:
                first = rng.choice(ODD_STARTS)
            case 2 | 3:
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(ODD_REPLY_LINES))
            case 4 | 5:
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(FRAMINGS))
            case 6:
                lines = [line for line in lines if not line.startswith((b"Content-L", b"Transfer-E"))]
                lines.append(b"Transfer-Encoding: chunked")
                body = rng.choice(BAD_CHUNKS)
            case 7:
                body += rng.choice(
                    (b"\r\n", b"\0", b"<%b>" % marker, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
                )
            case 8:
                before = rng.choice(INTERIM) * rng.choice((1, 1, 3))
            case _:
                body = rng.choice((body[:-1], body[: len(body) // 2], b"", body * 2))
    head = b"\r\n".join([first, *lines, b"", b""]).replace(b"{origin}", origin)
    return before + head + body


def reply_case(index: int, origin: bytes) -> ReplyCase:
    rng = random.Random(f"{SEED}:replies:{index}")
    target = b"/v2/r%07d" % index
    method = rng.choices((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE"), (60, 10, 18, 6, 6))[0]
    version = b"1.0" if rng.random() < 0.06 else b"1.1"
    asks = b"%b %b HTTP/%b\r\nHost: localhost\r\nX-Slproxy-Retry: off\r\n" % (method, target, version)
    early = False
    if method in (b"POST", b"PUT"):
        if version == b"1.1" and rng.random() < 0.5:
            early = rng.random() < 0.4
            asks += b"Transfer-Encoding: chunked\r\n\r\n" + in_chunks(rng, b"abcdefgh" * 50)
        else:
            asks += b"Content-Length: 4\r\n\r\nabcd"
    else:
        asks += b"\r\n"
    framing = rng.choices(("length", "chunks", "close"), (45, 35, 20))[0]
    done = rng.choices((0, 1, 2, 3, 6), (8, 46, 27, 12, 7))[0]
    strange = sum(rng.random() < 0.6 for _ in range(done))
    raw = a_reply(rng, b"m%07d" % index, origin, strange, framing)
    for _ in range(done - strange):
        raw = spoilt(rng, raw)
    end = rng.choices(("keep", "close", "reset"), (76, 16, 8))[0]
    meant = reply_in(raw, method, "")
    whole = meant is not None and meant.whole
    if not whole and end == "keep" and rng.random() < 0.97:
        end = "close"  # what stays unfinished costs its timeout
    late = b""
    if end == "keep" and whole and rng.random() < 0.15:
        late = rng.choice(
            (b"\r\n", b"\0", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK")
        )
    return ReplyCase(index, asks, in_pieces(rng, raw), rng.choice((0, 1, 3)), end, late, early, whole)


async def test_whatever_the_upstream_answers_a_client_gets_that_or_an_error_or_an_abort(
    request: pytest.FixtureRequest,
) -> None:
    count = int(request.config.getoption("--fuzz") * 0.4)
    playing: dict[bytes, ReplyCase] = {}
    passed_on = 0
    todo = numbers("replies", count)

    def play(asked: Wire) -> ReplyCase | None:
        case = playing.get(asked.first[2])
        if case is not None and (asked.whole or case.early):
            case.times += 1
            return case
        return None

    async with arena(play) as fight:
        origin = fight.app.settings.upstream.api_url.encode()
        for start in range(0, len(todo), ROUND * 8):
            cases = [reply_case(index, origin) for index in todo[start : start + ROUND * 8]]
            playing.clear()
            playing.update({b"/v2/r%07d" % case.index: case for case in cases})
            fight.seen.clear()
            passed_on += sum(await at_once(functools.partial(ask_for_reply, fight), cases))
            await fight.quiet()
            for case in cases:
                if case.times != 1:
                    fight.tell(f"sent {case.times} times\n  {case}")
            fight.read_journal()
            fight.judged()
    assert passed_on > len(todo) // 5 or len(todo) < ROUND, "most replies were refused: the search sees too little"


async def ask_for_reply(fight: Arena, case: ReplyCase) -> bool:
    """Play a case, and ask something plain after it; tell whether its reply was passed on whole."""
    asked = read_request(case.asks, 0)
    assert asked is not None
    for _ in range(2):
        client = await fight.connect()
        await client.send([case.asks], 0)
        answered = await client.until(lambda client=client: answer_to(client, asked) is not None)  # type: ignore[misc]
        if case.times or not RACE.match(client.data):
            break
    if not answered:
        fight.tell(f"no answer\n  {case}\n  {client.data[:2000]!r}")
    for what in wrong_with_reply(case, client, asked):
        fight.tell(f"{what}\n  {case}\n  client got: {client.ended} {client.data[:3000]!r}")
    answer = answer_to(client, asked)
    kept = answer is not None and not client.ended and answer.all(b"connection") != [b"close"]
    if not kept:
        client.leave()
    if (got := await wrong_with_next(fight, case.index, client if kept else None)) is not None:
        fight.tell(f"the next request got {got}\n  {case}")
    client.leave()
    return answer is not None and not is_problem(answer)


def answer_to(client: Client, asked: Wire) -> Wire | None:
    """Return the final answer, once it is whole."""
    finals = answers_in(client, [asked]).finals
    return finals[0] if finals else None


async def wrong_with_next(fight: Arena, index: int, client: Client | None) -> str | None:
    """Ask something plain, on the same connection if there is one; return what came if it is not its own answer."""
    target = b"/v2/b%07d" % index
    for attempt in range(2):
        client = client or await fight.connect()
        client.data = b""
        await client.send([plain(target)], 0)
        await client.until(lambda client=client: b"\r\n\r\n" in client.data)  # type: ignore[misc]
        got, ended = client.data, client.ended
        client.leave()
        client = None
        if attempt or not RACE.match(got):
            break
    match = re.search(rb"\r\nX-Serial: ([0-9]+)\r\n(?:.*\r\n)?\r\n([0-9]+)\Z", got, re.DOTALL)
    if match and match[1] == match[2] and (wire := fight.seen[int(match[1])].wire) and wire.first[2] == target:
        return None
    return f"{ended} {got!r}"


def wrong_with_reply(case: ReplyCase, client: Client, asked: Wire) -> Iterator[str]:
    """Yield what is wrong with what the client got of a reply."""
    method = asked.first[1]
    meant = reply_in(case.raw, method, {"keep": "", "close": "closed"}.get(case.end, case.end))
    if KEY in client.data:
        yield "the client is told the API key"
    try:
        got = read_reply(client.data, 0, method=method, ended=client.ended)
    except MalformedError:
        yield "an answer that is no valid HTTP"
        return
    if got is None:
        yield "no answer at all"
        return
    if got.whole and client.data[got.end :]:
        yield "more than an answer"
    if is_problem(got):
        if got.status not in (502, 504):
            yield "a problem that is no 502 or 504"
        yield from wrong_with_problem(got, bodiless=method == b"HEAD")
        if meant is not None and meant.whole and case.end != "reset" and is_exact(meant):
            yield "a problem in place of a reply that is as it should be"
        return
    if meant is None:
        yield "a reply that is not valid, passed on"
    elif got.status != meant.status or (got.first[3] or b"") != (meant.first[3] or b""):
        yield "another status line"
    elif not is_head_of(meant, got):
        yield "other headers"
    elif got.whole and not (meant.whole and got.body == meant.body):
        yield "a reply that was cut short, whole" if meant.body.startswith(got.body) else "another body"
    elif not meant.body.startswith(got.body):
        yield "another body, in part"
    elif not got.whole and meant.whole and case.end != "reset" and not meant.doubtful:
        yield "a whole reply, cut short"


def is_exact(meant: Wire) -> bool:
    """Tell whether a reply can be passed on exactly; what cannot is a 502."""
    texts = [meant.first[3] or b"", *(part for each in meant.fields for part in each)]
    return (
        not meant.doubtful and all(_is_utf8(text) and len(text) < 60_000 for text in texts) and len(meant.fields) < 1000
    )


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


OURS = [b"Via", b"Server-Timing", b"X-Request-Id"]
HOP = {b"connection", b"transfer-encoding"}


def is_head_of(meant: Wire, got: Wire) -> bool:
    """Tell whether the fields are the reply's, in order, with ours after them and a ``Location`` that points here."""
    fields = [each for each in got.fields if each[0].lower() not in HOP]
    stray = any(name.lower() in HOPS or UPSTREAM_ONLY.fullmatch(name.lower()) for name, _ in fields)
    if stray or [name for name, _ in fields[-len(OURS) :]] != OURS:
        return False
    expected, fields = passing(meant.fields, UPSTREAM_ONLY), passing(fields[: -len(OURS)], UPSTREAM_ONLY)
    return len(expected) == len(fields) and all(
        name == seen and (value == here or (name.lower() == b"location" and points_here(value, here)))
        for (name, value), (seen, here) in zip(expected, fields, strict=True)
    )


def points_here(value: bytes, here: bytes) -> bool:
    rest = here.removeprefix(b"http://localhost")
    return rest != here and value.endswith(rest) and b"127.0.0.1:" in value
