"""Ring: the record of what happened lately, limited by entries and by bytes. The oldest gives way first.

1. What is under way is kept whatever its age: there are no more of those than clients. It counts once it has ended, and
   the bodies of it as they come.
2. What is pinned stays until it is unpinned, and counts. Pins take half of the room at most.
3. ``seq`` counts changes, so that whoever has seen all up to one can be told what came after it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from slproxy.observe import Exchange, Recording

# What an exchange and its recording take besides their texts, in bytes: the objects, with one attempt and the place in
# here (tests/inspect/test_ring.py measures it). Each further attempt or wait, and each header of ours.
ENTRY, PART, HEADER = 1_900, 160, 180


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """Something else than a request that happened, such as a renewal."""

    kind: str
    began: float
    ended: float
    text: str
    client: str = ""


Entry = tuple[Exchange | Note, Recording]


class Ring:
    """What happened lately. Numbers are those of ``Recording.n``, and sizes bytes."""

    def __init__(self, *, entries: int, memory: int) -> None:
        self.entries, self.memory = entries, memory
        self.seq = self.size = 0
        self._numbers = 0
        self.open: dict[int, Entry] = {}
        # In the order of their ends.
        self._ended: OrderedDict[int, Entry] = OrderedDict()
        self._pinned: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._ended) + len(self._pinned)

    def resize(self, *, entries: int, memory: int) -> None:
        """Set how much is kept."""
        self.entries, self.memory = entries, memory
        self._trim()

    def next_number(self) -> int:
        """Return the number of a new entry."""
        self._numbers += 1
        return self._numbers

    def end(self, what: Exchange | Note, recording: Recording, size: int) -> None:
        """Keep what has ended; ``size`` is what it takes besides its bodies."""
        self.open.pop(recording.n, None)
        self.seq += 1
        recording.seq = self.seq
        recording.size = size + _of_bodies(recording)
        self.size += size
        self._ended[recording.n] = (what, recording)
        if self.size > self.memory or len(self._ended) + len(self._pinned) > self.entries:
            self._trim()

    def take(self, size: int) -> bool:
        """Take so much for a body, if need be in the place of what is oldest; return whether there was room."""
        self.size += size
        if self.size > self.memory:
            self._trim()
            if self.size > self.memory:
                self.size -= size
                return False
        return True

    def _trim(self) -> None:
        while self._ended and (self.size > self.memory or len(self) > self.entries):
            _, (_, oldest) = self._ended.popitem(last=False)
            self.size -= oldest.size

    def get(self, n: int) -> Entry | None:
        """Return an entry by its number, if it is kept."""
        return self._ended.get(n) or self._pinned.get(n) or self.open.get(n)

    def __iter__(self) -> Iterator[Entry]:
        yield from self._pinned.values()
        yield from self._ended.values()

    def newest(self) -> Iterator[Entry]:
        """Yield what has ended, but for what is pinned, the newest first."""
        return reversed(self._ended.values())

    @property
    def first(self) -> int:
        """The lowest number that is kept, or that comes next."""
        return min((recording.n for _, recording in self), default=self._numbers + 1)

    def pin(self, n: int, *, pinned: bool) -> bool:
        """Pin an entry that has ended, or let it go again; return whether it is as asked for."""
        source, target = (self._ended, self._pinned) if pinned else (self._pinned, self._ended)
        entry = source.get(n)
        if entry is None:
            return n in target
        recording = entry[1]
        if pinned and (
            len(self._pinned) >= self.entries // 2
            or recording.size + sum(each.size for _, each in self._pinned.values()) > self.memory // 2
        ):
            return False
        del source[n]
        target[n] = entry
        self.seq += 1
        recording.seq, recording.is_pinned = self.seq, pinned
        return True

    def clear(self, is_meant: Callable[[Entry], bool]) -> None:
        """Forget what has ended and is meant, but for what is pinned."""
        for n, entry in list(self._ended.items()):
            if is_meant(entry):
                self.size -= entry[1].size
                del self._ended[n]

    def forget(self) -> None:
        """Forget everything."""
        for kept in (self.open, self._ended, self._pinned):
            kept.clear()
        self.size = 0


def size_of(exchange: Exchange, recording: Recording) -> int:
    """Return what an exchange that has ended takes, besides its bodies."""
    own = recording.own
    return (
        ENTRY
        + 4 * (0 if recording.target.isascii() else len(recording.target))
        + len(recording.target)
        + len(exchange.path)
        + len(recording.headers)
        + len(recording.onward)
        + len(recording.reply)
        + len(recording.passed)
        + len(recording.answer)
        + PART * (len(exchange.attempts) + len(exchange.waits))
        + (HEADER * len(own) if own is not None else 0)
    )


def note_size(note: Note) -> int:
    """Return what a note takes."""
    return ENTRY + len(note.text) + len(note.client)


def _of_bodies(recording: Recording) -> int:
    bodies = (recording.request_body, recording.reply_body)
    return sum(len(body.data) for body in bodies if body is not None)
