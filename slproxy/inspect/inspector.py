"""Inspector: listens to what happens, and serves the pages that show it."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import slproxy
from slproxy.config import OWN_PAGES, InspectSettings
from slproxy.errors import BadRequest, MethodRefused, NotFound, NotRecorded, OriginRefused, Overloaded, TooLarge
from slproxy.forward import OWN_METHODS, Answer, Inbound, check_origin
from slproxy.http import ByName, http_date
from slproxy.inspect.details import details
from slproxy.inspect.facts import FactsOf
from slproxy.inspect.feed import RETRY, Feed, Viewer, visible_to
from slproxy.inspect.har import har
from slproxy.inspect.resend import repeated
from slproxy.inspect.ring import Entry, Note, Ring, note_size, size_of
from slproxy.inspect.rows import row
from slproxy.inspect.static import GUARDS, static_file
from slproxy.inspect.veil import Veil
from slproxy.observe import Exchange, Listener, Recording, Renewal, TokenEvent
from slproxy.pace import CallLater, Pacer
from slproxy.untrusted import parse_json

INSPECTOR = OWN_PAGES + "inspector/"
# The largest document that the page sends, in bytes: an edited body.
LARGEST = 1024 * 1024
# How many requests may be sent again at a time.
RESENDS = 20
# How many that wait for the budget are named, and how many entries an archive holds.
WAITING, ARCHIVED = 50, 5_000
# How many rows `recent` has: more than most terminals have lines.
RECENT = 50
# For how long bodies are recorded where the page does not say, and at most, in minutes.
MINUTES, MOST_MINUTES = 10, 24 * 60

_NUMBER = re.compile(r"[0-9]{1,15}")


class Requests(Protocol):
    """What sends requests as if a client had."""

    def begin(self, inbound: Inbound) -> Exchange: ...

    async def carry_out(self, inbound: Inbound, exchange: Exchange) -> None: ...


class Inspector(Listener):
    """The record of what happened, and its pages. It listens as long as it is enabled."""

    def __init__(
        self,
        rules: InspectSettings,
        *,
        facts: FactsOf,
        pacer: Pacer,
        requests: Callable[[], Requests],
        now: Callable[[], float],
        monotonic: Callable[[], float],
        call_later: CallLater,
    ) -> None:
        self._rules = rules
        self._facts, self._pacer, self._requests = facts, pacer, requests
        self._now, self._monotonic, self._call_later = now, monotonic, call_later
        self._boot = secrets.token_hex(4)
        self._veil = Veil(lambda: facts().secrets)
        self._ring = Ring(entries=rules.entries, memory=rules.memory)
        self._feed = Feed(self._ring, self._veil, self, boot=self._boot, monotonic=monotonic, call_later=call_later)
        self._take = self._ring.take if rules.bodies == "on" else None
        # Until when bodies are recorded, in Unix time; None where there is no end to it.
        self._bodies_until: float | None = None
        self._resends: set[asyncio.Task[None]] = set()
        self._renewals: dict[Renewal, Recording] = {}

    # What happens.

    def request_began(self, exchange: Exchange) -> None:
        """Keep a request from its begin, unless it asks for a page of the proxy's own."""
        if exchange.path.startswith(OWN_PAGES):
            return
        if self._bodies_until is not None and self._now() >= self._bodies_until:
            self._record_bodies(on=False)
        ring = self._ring
        ring.number = n = ring.number + 1
        recording = exchange.recording = Recording(n, self._now(), self._take)
        ring.open[n] = (exchange, recording)

    def request_ended(self, exchange: Exchange) -> None:
        """Keep it as it ended."""
        recording = exchange.recording
        if recording is None:
            return
        self._ring.end(exchange, recording, size_of(exchange, recording))
        if self._feed.is_watched:
            self._feed.changed((exchange, recording))

    def renewal_began(self, renewal: Renewal) -> None:
        """Keep a renewal."""
        self._veil.learn()
        recording = self._renewals[renewal] = self._recording()
        note = Note(kind="renewal", began=renewal.began, ended=renewal.ended, text=f"{renewal.reason}: under way")
        self._ring.begin(note, recording)

    def renewal_ended(self, renewal: Renewal) -> None:
        """Keep what came of it."""
        recording = self._renewals.pop(renewal, None)
        if recording is None:
            return
        text = f"{renewal.reason}: {renewal.outcome or 'a defect ended it'}"
        self._keep_note(Note(kind="renewal", began=renewal.began, ended=renewal.ended, text=text), recording)

    def token_event(self, event: TokenEvent) -> None:
        """Keep an event of the token."""
        now = self._monotonic()
        note = Note(kind=event.kind, began=now, ended=now, text=f"{event.grant}: {event.detail}")
        self._keep_note(note, self._recording())

    def _recording(self) -> Recording:
        self._ring.number += 1
        return Recording(self._ring.number, self._now())

    def _keep_note(self, note: Note, recording: Recording) -> None:
        self._veil.learn()
        self._ring.end(note, recording, note_size(note))
        if self._feed.is_watched:
            self._feed.changed((note, recording))

    # Settings, and the end.

    def reconfigure(self, rules: InspectSettings) -> None:
        """Put other settings in force; what was kept is forgotten where nothing is to be kept."""
        before, self._rules = self._rules, rules
        self._ring.resize(entries=rules.entries, memory=rules.memory)
        if before.bodies != rules.bodies:
            self._record_bodies(on=rules.bodies == "on")
        if not rules.enabled:
            self._feed.close("the inspector was turned off")
            self._ring.forget()
            self._renewals.clear()

    def end_streams(self) -> None:
        """End the streams of all tabs, for the shutdown."""
        self._feed.close("the proxy is shutting down")

    async def stop(self) -> None:
        """End what is under way."""
        self.end_streams()
        for task in self._resends:
            task.cancel()
        await asyncio.gather(*self._resends, return_exceptions=True)

    # What tabs are told besides rows.

    def hello(self, viewer: Viewer) -> dict[str, object]:  # noqa: ARG002  # each sees the same of this
        """Return what each connection of a tab begins with."""
        facts = self._facts()
        return {
            "version": slproxy.__version__,
            "boot": self._boot,
            "bodies": self._bodies(),
            "limits": {"entries": self._ring.entries, "memory": self._ring.memory},
            "profile": facts.profile,
            "grant": facts.grant,
            "upstream": facts.api_url,
            "sandbox": facts.is_sandbox,
            "first": self._ring.first,
            "read_only": facts.read_only,
            "at": round(self._now(), 3),
        }

    def budget(self) -> dict[str, object] | None:
        """Return what is left of this minute's budget, and who waits for it."""
        state = self._pacer.state()
        if state is None:
            return None
        now = self._monotonic()
        waiting = [
            {
                "client": each.client,
                "priority": "bulk" if each.bulk else "interactive",
                "cost": each.cost,
                "for": round(now - each.arrived, 1),
            }
            for each, _ in zip(self._pacer.budget.queue, range(WAITING), strict=False)
        ]
        return {
            "limit": state["ours"],
            "remaining": state["remaining"],
            "spent": self._pacer.budget.account.minute.spent,
            "resets_in": state["resets_in"],
            "waiting": waiting,
            "more_waiting": len(self._pacer.budget.queue) - len(waiting),
            "at": round(self._now(), 3),
        }

    def _bodies(self) -> dict[str, object]:
        return {"on": self._take is not None, "until": self._bodies_until}

    def _record_bodies(self, *, on: bool, until: float | None = None) -> None:
        self._take, self._bodies_until = self._ring.take if on else None, until
        self._feed.tell("bodies", self._bodies())

    # Pages.

    async def page(self, inbound: Inbound, target: str, headers: ByName) -> Answer:
        """Return a page of the inspector, or do what its page asks for. Raises Problem."""
        path, _, query = target.partition("?")
        host = headers[b"host"][0].decode("latin-1")
        # Not those of `listen.allow_origins` either: they may use the API, and not see what others do.
        check_origin(headers, host, frozenset())
        if not self._rules.enabled:
            raise NotFound("The inspector is off.", hint="Set inspect.enabled = true to see the last requests here.")
        # Where clients have keys, the one that the key of this request belongs to (docs/inspector.md, Who sees what).
        viewer: Viewer = None
        name = path.removeprefix(INSPECTOR) if path != OWN_PAGES else "index.html"
        if name in ("resend", "bodies", "clear", "pin"):
            return await self._act(name, inbound, headers, viewer)
        if inbound.method not in OWN_METHODS:
            raise MethodRefused(
                "The inspector's pages are only read.", hint="Use GET.", headers=(("Allow", ", ".join(OWN_METHODS)),)
            )
        if name == "events":
            return self._events(inbound.method, headers, viewer, query)
        if name == "recent":
            return self._recent(viewer)
        if name == "har":
            return self._har(host, viewer, query)
        if name.startswith("exchanges/"):
            return self._details(name.removeprefix("exchanges/"), viewer)
        return _file(name, headers.get(b"if-none-match", ()))

    def _events(self, method: str, headers: ByName, viewer: Viewer, query: str) -> Answer:
        after = next(iter(headers.get(b"last-event-id", ())), b"").decode("latin-1")
        if not after and (found := re.search(r"(?:^|&)after=([0-9a-f]+-[0-9]+)(?:&|$)", query)):
            after = found[1]
        fields = _fields("text/event-stream")
        if method == "HEAD":
            return Answer(status=200, headers=fields, has_length=False, body=b"")
        tab = self._feed.open(viewer, after)
        if tab is None:
            raise Overloaded(
                "The inspector is open in too many tabs.",
                hint="Close some of them.",
                headers=(("Retry-After", str(RETRY // 1000)),),
            )
        return Answer(status=200, headers=fields, has_length=False, body=tab, close_connection=True, is_endless=True)

    def _recent(self, viewer: Viewer) -> Answer:
        """Return the rows of what has ended last, the newest at the end."""
        last = itertools.islice((each for each in self._ring.newest() if visible_to(viewer, each)), RECENT)
        rows = [row(each, self._monotonic()) for each in last]
        return self._document({"rows": rows[::-1]})

    def _details(self, number: str, viewer: Viewer) -> Answer:
        return self._document(self._worded(self._entry(number, viewer)))

    def _worded(self, entry: Entry) -> dict[str, object]:
        authority = self._facts().api_url.partition("://")[2]
        return details(entry, self._monotonic(), authority=authority, mask=self._veil.mask)

    def _har(self, host: str, viewer: Viewer, query: str) -> Answer:
        asked = dict(each.partition("=")[::2] for each in query.split("&"))
        if numbers := asked.get("n", ""):
            entries = [self._entry(each, viewer) for each in numbers.replace("%2C", ",").split(",")[:ARCHIVED]]
        else:
            entries = [each for each in self._ring if visible_to(viewer, each)][-ARCHIVED:]
        entries.sort(key=lambda each: each[1].n)
        archive = har([self._worded(each) for each in entries], origin=f"http://{host}", mask=asked.get("mask") == "1")
        return self._document(archive, [("Content-Disposition", 'attachment; filename="slproxy.har"')])

    def _entry(self, number: object, viewer: Viewer) -> Entry:
        entry = self._ring.get(int(str(number))) if _NUMBER.fullmatch(str(number)) else None
        if entry is None or not visible_to(viewer, entry):
            raise NotFound(
                "That request is not kept any more.", hint="Pin what must stay (inspect.entries, inspect.memory)."
            )
        return entry

    # What the page asks for.

    async def _act(self, name: str, inbound: Inbound, headers: ByName, viewer: Viewer) -> Answer:
        asked = await _asked(inbound, headers)
        if name == "bodies":
            minutes = asked.get("minutes", MINUTES)
            if not isinstance(minutes, int | float) or not 0 < minutes <= MOST_MINUTES:
                raise BadRequest("There is no such number of minutes.", hint=f"From 1 to {MOST_MINUTES}.")
            is_on = asked.get("on") is True
            self._record_bodies(on=is_on, until=self._now() + minutes * 60 if is_on else None)
            return self._document(self._bodies())
        if name == "clear":
            self._ring.clear(lambda entry: visible_to(viewer, entry))
            self._feed.tell("cleared", {})
            return self._document({})
        entry = self._entry(asked.get("n"), viewer)
        if name == "pin":
            is_pinned = asked.get("pinned") is True
            if not self._ring.pin(entry[1].n, pinned=is_pinned):
                raise NotRecorded("No more can be pinned, or it has not ended yet.", hint="Unpin others first.")
            self._feed.changed(entry)
            return self._document({"n": entry[1].n, "pinned": is_pinned})
        edit = asked.get("edit")
        if edit is not None and not isinstance(edit, dict):
            raise BadRequest("The edit is no object.", hint="Send method, target, headers and body.")
        return self._document({"n": self._resend(repeated(entry, inbound, edit), entry[1].n)})

    def _resend(self, inbound: Inbound, first: int) -> int:
        if len(self._resends) >= RESENDS:
            raise NotRecorded("Too many requests are being sent again.", hint="Wait for some of them.")
        requests = self._requests()
        exchange = requests.begin(inbound)
        assert exchange.recording is not None, "the inspector listens"
        exchange.recording.resent = first
        task = asyncio.create_task(requests.carry_out(inbound, exchange), name="slproxy: send a request again")
        self._resends.add(task)
        task.add_done_callback(self._resends.discard)
        return exchange.recording.n

    def _document(self, document: object, more: Iterable[tuple[str, str]] = ()) -> Answer:
        body = self._veil.mask(json.dumps(document)).encode() + b"\n"
        fields = [*_fields("application/json"), ("Content-Length", str(len(body))), *more]
        return Answer(status=200, headers=fields, body=body)


def _fields(kind: str, *, cache: str = "no-store") -> list[tuple[str, str]]:
    return [("Content-Type", kind), ("Date", http_date(time.time())), ("Cache-Control", cache), *GUARDS]


def _file(name: str, known: Iterable[bytes]) -> Answer:
    found = static_file(name)
    if found is None:
        raise NotFound("The inspector has no such page.", hint=f"It is at {OWN_PAGES}.")
    content, kind, tag = found
    fields = [*_fields(kind, cache="no-cache"), ("ETag", tag)]
    if any(tag.encode() in each for each in known):
        return Answer(status=304, headers=fields, body=b"")
    return Answer(status=200, headers=[*fields, ("Content-Length", str(len(content)))], body=content)


async def _asked(inbound: Inbound, headers: ByName) -> dict[str, object]:
    """Return what the page sends; a page of another origin cannot send it so without being asked about it first."""
    if inbound.method != "POST":
        raise MethodRefused("This is not read.", hint="Use POST.", headers=(("Allow", "POST"),))
    kind = next(iter(headers.get(b"content-type", ())), b"").partition(b";")[0].strip().lower()
    if kind != b"application/json" or headers.get(b"x-slproxy-inspector") != [b"1"]:
        raise OriginRefused(
            "Only the inspector's own page may do that.",
            hint="Send application/json and the header X-Slproxy-Inspector: 1.",
        )
    body = b""
    while inbound.read is not None and (chunk := await inbound.read()):
        body += chunk
        if len(body) > LARGEST:
            raise TooLarge(f"That is over {LARGEST} bytes.", hint="Send less.")
    try:
        document = parse_json(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BadRequest("That is no JSON object.", hint="Send one.")
    return document
