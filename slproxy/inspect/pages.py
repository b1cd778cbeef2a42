"""The pages of the inspector: the files, the stream, the documents, and what the page asks for."""

from __future__ import annotations

import functools
import itertools
import json
import re
import time
from collections.abc import Iterable

from slproxy.config import OWN_PAGES
from slproxy.errors import BadRequest, MethodRefused, NotFound, NotRecorded, OriginRefused, Overloaded, TooLarge
from slproxy.forward import OWN_METHODS, Answer, Client, Inbound, check_origin
from slproxy.http import ByName, http_date
from slproxy.inspect.details import details
from slproxy.inspect.feed import RETRY, Viewer, visible_to
from slproxy.inspect.har import Archive, archived
from slproxy.inspect.inspector import Inspector
from slproxy.inspect.resend import repeated
from slproxy.inspect.ring import Entry, Note
from slproxy.inspect.rows import row
from slproxy.inspect.static import GUARDS, static_file
from slproxy.untrusted import parse_json

INSPECTOR = OWN_PAGES + "inspector/"
# The largest document that the page sends, in bytes: an edited body.
LARGEST = 1024 * 1024
# How many entries an archive holds.
ARCHIVED = 5_000
# How many of them are held until their reader has taken them.
PIECE = 10
# How many rows `recent` has: more than most terminals have lines.
RECENT = 50
# For how long bodies are recorded where the page does not say, and at most, in minutes.
MINUTES, MOST_MINUTES = 10, 24 * 60

_NUMBER = re.compile(r"[0-9]{1,15}")


class InspectorPages:
    """What is served of an inspector."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector

    async def page(self, inbound: Inbound, target: str, headers: ByName, client: Client | None) -> Answer:
        """Return a page of the inspector, or do what its page asks for; a ``client`` sees its own. Raises Problem."""
        answer = await self._page(inbound, target, headers, None if client is None else client.name)
        if inbound.method == "HEAD":
            answer.close()
        return answer

    async def _page(self, inbound: Inbound, target: str, headers: ByName, viewer: Viewer) -> Answer:
        path, _, query = target.partition("?")
        host = headers[b"host"][0].decode("latin-1")
        # Not those of `listen.allow_origins` either: they may use the API, and not see what others do.
        try:
            check_origin(headers, host, frozenset())
        except OriginRefused:
            raise OriginRefused(
                "Pages of other origins may not use the inspector.", hint=f"Open http://{host}{OWN_PAGES} itself."
            ) from None
        if not self._inspector.is_enabled:
            raise NotFound("The inspector is off.", hint="Set inspect.enabled = true to see the last requests here.")
        name = path.removeprefix(INSPECTOR) if path != OWN_PAGES else "index.html"
        if name in ("resend", "bodies", "clear", "pin"):
            return await self._act(name, inbound, headers, viewer)
        if inbound.method not in OWN_METHODS:
            raise MethodRefused(
                "The inspector's pages are only read.", hint="Use GET.", headers=(("Allow", ", ".join(OWN_METHODS)),)
            )
        if name == "events":
            return self._events(headers, viewer, query)
        if name == "recent":
            return self._recent(viewer)
        if name == "har":
            return self._har(host, viewer, query)
        if name.startswith("exchanges/"):
            return self._details(name.removeprefix("exchanges/"), viewer)
        return _file(name, headers.get(b"if-none-match", ()))

    def _events(self, headers: ByName, viewer: Viewer, query: str) -> Answer:
        after = next(iter(headers.get(b"last-event-id", ())), b"").decode("latin-1")
        if not after and (found := re.search(r"(?:^|&)after=([0-9a-f]+-[0-9]+)(?:&|$)", query)):
            after = found[1]
        fields = _fields("text/event-stream")
        tab = self._inspector.feed.open(viewer, after)
        if tab is None:
            raise Overloaded(
                "The inspector is open in too many tabs.",
                hint="Close some of them.",
                headers=(("Retry-After", str(RETRY // 1000)),),
            )
        return Answer(status=200, headers=fields, has_length=False, body=tab, close_connection=True, is_endless=True)

    def _recent(self, viewer: Viewer) -> Answer:
        """Return the rows of what has ended last, the newest at the end."""
        last = itertools.islice((each for each in self._inspector.ring.newest() if visible_to(viewer, each)), RECENT)
        rows = [row(each, self._inspector.monotonic()) for each in last]
        return self._document({"rows": rows[::-1]})

    def _details(self, number: str, viewer: Viewer) -> Answer:
        return self._document(self._worded(self._entry(number, viewer)))

    def _worded(self, entry: Entry) -> dict[str, object]:
        authority = self._inspector.facts().api_url.partition("://")[2]
        return details(entry, self._inspector.monotonic(), authority=authority, mask=self._inspector.veil.mask)

    def _har(self, host: str, viewer: Viewer, query: str) -> Answer:
        asked = dict(each.partition("=")[::2] for each in query.split("&"))
        ring = self._inspector.ring
        if numbers := asked.get("n", ""):
            kept = {str(each[1].n): each for each in (*ring, *ring.open.values()) if visible_to(viewer, each)}
            wanted = dict.fromkeys(numbers.replace("%2C", ",").split(","))
            if not wanted.keys() <= kept.keys():
                raise _not_kept()
            found = [kept[each][1].n for each in wanted][:ARCHIVED]
            kept.clear()
        else:
            found = [each[1].n for each in ring if visible_to(viewer, each)][-ARCHIVED:]
        word = functools.partial(archived, origin=f"http://{host}", mask=asked.get("mask") == "1")
        pieces = (
            json.dumps(word(self._worded(each)))
            for piece in ring.pieces(sorted(found), PIECE)
            for each in piece
            if not isinstance(each[0], Note)
        )
        fields = [*_fields("application/json"), ("Content-Disposition", 'attachment; filename="slproxy.har"')]
        return Answer(status=200, headers=fields, has_length=False, body=Archive(pieces, self._inspector.veil.mask))

    def _entry(self, number: object, viewer: Viewer) -> Entry:
        entry = self._inspector.ring.get(int(str(number))) if _NUMBER.fullmatch(str(number)) else None
        if entry is None or not visible_to(viewer, entry):
            raise _not_kept()
        return entry

    # What the page asks for.

    async def _act(self, name: str, inbound: Inbound, headers: ByName, viewer: Viewer) -> Answer:
        asked = await _asked(inbound, headers)
        if name == "bodies":
            if viewer is not None:
                raise NotFound(
                    f"The client {viewer} does not decide whether bodies are recorded: they are everybody's.",
                    hint="Ask whoever runs this proxy.",
                    members={"client": viewer, "rule": f"client.{viewer}.key"},
                )
            minutes = asked.get("minutes", MINUTES)
            if not isinstance(minutes, int | float) or not 0 < minutes <= MOST_MINUTES:
                raise BadRequest("There is no such number of minutes.", hint=f"From 1 to {MOST_MINUTES}.")
            is_on = asked.get("on") is True
            self._inspector.record_bodies(on=is_on, until=self._inspector.now() + minutes * 60 if is_on else None)
            return self._document(self._inspector.bodies())
        if name == "clear":
            self._inspector.ring.clear(lambda entry: visible_to(viewer, entry))
            self._inspector.feed.tell("cleared", {}, viewer)
            return self._document({})
        entry = self._entry(asked.get("n"), viewer)
        if name == "pin":
            is_pinned = asked.get("pinned") is True
            if not self._inspector.ring.pin(entry[1].n, pinned=is_pinned):
                raise NotRecorded("No more can be pinned, or it has not ended yet.", hint="Unpin others first.")
            self._inspector.feed.changed(entry)
            return self._document({"n": entry[1].n, "pinned": is_pinned})
        edit = asked.get("edit")
        if edit is not None and not isinstance(edit, dict):
            raise BadRequest("The edit is no object.", hint="Send method, target, headers and body.")
        return self._document({"n": self._inspector.resend(repeated(entry, inbound, edit), entry[1].n, viewer)})

    def _document(self, document: object) -> Answer:
        body = self._inspector.veil.mask(json.dumps(document)).encode() + b"\n"
        fields = [*_fields("application/json"), ("Content-Length", str(len(body)))]
        return Answer(status=200, headers=fields, body=body)


def _not_kept() -> NotFound:
    return NotFound("That request is not kept any more.", hint="Pin what must stay (inspect.entries, inspect.memory).")


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
