"""Inspector: listens to what happens, keeps it for a while, and tells those who watch."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from typing import Protocol

import slproxy
from slproxy.config import OWN_PAGES, InspectSettings
from slproxy.errors import NotRecorded
from slproxy.forward import Inbound
from slproxy.inspect.facts import FactsOf
from slproxy.inspect.feed import Feed, Viewer
from slproxy.inspect.ring import Note, Ring
from slproxy.inspect.veil import Veil
from slproxy.observe import Exchange, Listener, Recording, Renewal, TokenEvent
from slproxy.pace import CallLater, Pacer

# How many requests are kept of a burst, as many as `inspect.entries`; and of each second that it goes on, when nobody
# could look at more. To keep one takes a tenth of a GET's time.
KEPT_OF_A_BURST, KEPT_A_SECOND = 1_000, 200
# How many requests may be sent again at a time.
RESENDS = 20
# How many that wait for the budget are named.
WAITING = 50


class Requests(Protocol):
    """What sends requests as if a client had."""

    def begin(self, inbound: Inbound) -> Exchange: ...

    async def carry_out(self, inbound: Inbound, exchange: Exchange) -> None: ...


class Inspector(Listener):
    """The record of what happened, and those who watch it. It listens as long as it is enabled."""

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
        self.facts, self._pacer, self._requests = facts, pacer, requests
        self.now, self.monotonic = now, monotonic
        self._boot = secrets.token_hex(4)
        self.veil = Veil(lambda: facts().secrets)
        self.ring = Ring(entries=rules.entries, memory=rules.memory)
        self.feed = Feed(self.ring, self.veil, self, boot=self._boot, monotonic=monotonic, call_later=call_later)
        self._take = self.ring.take if rules.bodies == "on" else None
        # Until when bodies are recorded, in Unix time; None where there is no end to it.
        self._bodies_until: float | None = None
        # Who has asked for each.
        self._resends: dict[asyncio.Task[None], Viewer] = {}
        self._renewals: dict[Renewal, Recording] = {}
        # How many were kept, less those that the seconds up to then allow, in monotonic time.
        self._kept, self._kept_at = 0.0, -math.inf

    # What happens.

    def request_began(self, exchange: Exchange) -> None:
        """Keep a request from its start, unless it asks for a page of the proxy's own."""
        if exchange.path.startswith(OWN_PAGES):
            return
        if (since := exchange.began - self._kept_at) >= 1.0:
            self._kept = max(0.0, self._kept - since * KEPT_A_SECOND)
            self._kept_at = exchange.began
        if self._kept >= KEPT_OF_A_BURST:
            self.feed.left_out += self.feed.is_watched
            return
        self._kept += 1
        if self._bodies_until is not None and self.now() >= self._bodies_until:
            self.record_bodies(on=False)
        ring = self.ring
        ring.number = n = ring.number + 1
        recording = exchange.recording = Recording()
        recording.n, recording.at = n, self.now()
        if self._take is not None:
            recording.take = self._take
        ring.open[n] = (exchange, recording)

    def request_ended(self, exchange: Exchange) -> None:
        """Keep it as it ended."""
        recording = exchange.recording
        if recording is None or recording.n not in self.ring.open:
            return  # a page of the proxy's own, or begun before a reload
        self.ring.end(exchange, recording)
        if self.feed.is_watched:
            self.feed.changed((exchange, recording))

    def renewal_began(self, renewal: Renewal) -> None:
        """Keep a renewal."""
        self.veil.learn()
        recording = self._renewals[renewal] = self._recording()
        note = Note(kind="renewal", began=renewal.began, ended=renewal.ended, text=f"{renewal.reason}: under way")
        self.ring.begin(note, recording)

    def renewal_ended(self, renewal: Renewal) -> None:
        """Keep what came of it."""
        recording = self._renewals.pop(renewal, None)
        if recording is None:
            return
        text = f"{renewal.reason}: {renewal.outcome or 'a defect ended it'}"
        self._keep_note(Note(kind="renewal", began=renewal.began, ended=renewal.ended, text=text), recording)

    def token_event(self, event: TokenEvent) -> None:
        """Keep an event of the token."""
        now = self.monotonic()
        note = Note(kind=event.kind, began=now, ended=now, text=f"{event.grant}: {event.detail}")
        self._keep_note(note, self._recording())

    def _recording(self) -> Recording:
        self.ring.number += 1
        recording = Recording()
        recording.n, recording.at = self.ring.number, self.now()
        return recording

    def _keep_note(self, note: Note, recording: Recording) -> None:
        self.veil.learn()
        self.ring.end(note, recording)
        if self.feed.is_watched:
            self.feed.changed((note, recording))

    # Settings, and the end.

    def reconfigure(self, rules: InspectSettings) -> None:
        """Put other settings in force; what was kept is forgotten where nothing is to be kept."""
        before, self._rules = self._rules, rules
        self.ring.resize(entries=rules.entries, memory=rules.memory)
        if before.bodies != rules.bodies:
            self.record_bodies(on=rules.bodies == "on")
        if not rules.enabled:
            self.feed.close("the inspector was turned off")
            self.ring.forget()
            self._renewals.clear()

    def end_streams(self) -> None:
        """End the streams of all tabs, for the shutdown."""
        self.feed.close("the proxy is shutting down")

    async def stop(self) -> None:
        """End what is under way."""
        self.end_streams()
        for task in self._resends:
            task.cancel()
        await asyncio.gather(*self._resends, return_exceptions=True)

    @property
    def is_enabled(self) -> bool:
        """Whether anything is kept."""
        return self._rules.enabled

    def resend(self, inbound: Inbound, first: int, viewer: Viewer) -> int:
        """Send a request that repeats another, and return its number. Raises Refused."""
        if sum(each == viewer for each in self._resends.values()) >= RESENDS:
            raise NotRecorded("Too many requests are being sent again.", hint="Wait for some of them.")
        requests = self._requests()
        self._kept = 0  # this one is kept, however many there are
        exchange = requests.begin(inbound)
        assert exchange.recording is not None, "the inspector listens"
        exchange.recording.resent = first
        task = asyncio.create_task(requests.carry_out(inbound, exchange), name="slproxy: send a request again")
        self._resends[task] = viewer
        task.add_done_callback(self._resends.pop)
        return exchange.recording.n

    # What tabs are told besides rows.

    def hello(self, viewer: Viewer) -> dict[str, object]:
        """Return what each connection of a tab begins with."""
        facts = self.facts()
        return {
            "version": slproxy.__version__,
            "boot": self._boot,
            "bodies": self.bodies(),
            "limits": {"entries": self.ring.entries, "memory": self.ring.memory},
            "profile": facts.profile,
            "grant": facts.grant,
            "upstream": facts.api_url,
            "sandbox": facts.is_sandbox,
            "first": self.ring.first,
            "read_only": facts.read_only or viewer in facts.readers,
            "at": round(self.now(), 3),
        }

    def budget(self, viewer: Viewer) -> dict[str, object] | None:
        """Return what is left of this minute's budget, and who waits for it; a client is told of itself alone."""
        state = self._pacer.state()
        if state is None:
            return None
        now = self.monotonic()
        queue = [each for each in self._pacer.budget.queue if viewer in (None, each.client)]
        waiting = [
            {
                "client": each.client,
                "priority": "bulk" if each.bulk else "interactive",
                "cost": each.cost,
                "for": round(now - each.arrived, 1),
            }
            for each in queue[:WAITING]
        ]
        return {
            "limit": state["ours"],
            "remaining": state["remaining"],
            "spent": self._pacer.budget.account.minute.spent,
            "resets_in": state["resets_in"],
            "waiting": waiting,
            "more_waiting": len(queue) - len(waiting),
            "at": round(self.now(), 3),
        }

    def bodies(self) -> dict[str, object]:
        """Return whether bodies are recorded, and until when."""
        return {"on": self._take is not None, "until": self._bodies_until}

    def record_bodies(self, *, on: bool, until: float | None = None) -> None:
        """Record bodies from now on, or no more; ``until`` is Unix time."""
        self._take, self._bodies_until = self.ring.take if on else None, until
        self.feed.tell("bodies", self.bodies())
