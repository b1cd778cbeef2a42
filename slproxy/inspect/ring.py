"""Ring: the record of what happened lately, limited by entries and by bytes. The oldest gives way first.

1. What is under way is kept whatever its age: there are no more of those than clients. It counts once it has ended, and
   the bodies of it as they come.
2. What is pinned stays until it is unpinned, and counts. Pins take half of the room at most.
3. ``seq`` counts changes, so that whoever has seen all up to one can be told what came after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from slproxy.observe import Exchange, Recording

# What an exchange and its recording take besides their texts, in bytes: the objects, with one attempt, the headers that
# we add, and the place in here; each attempt, wait or header besides (tests/inspect/test_ring.py measures it).
ENTRY, PART = 2_000, 170


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
        # The number that was given last.
        self.number = 0
        self.open: dict[int, Entry] = {}
        # In the order of their ends.
        self._ended: deque[Entry] = deque()
        self._pinned: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._ended) + len(self._pinned)

    def resize(self, *, entries: int, memory: int) -> None:
        """Set how much is kept."""
        self.entries, self.memory = entries, memory
        self._trim()

    def begin(self, what: Exchange | Note, recording: Recording) -> None:
        """Keep what has begun."""
        self.open[recording.n] = (what, recording)

    def end(self, what: Exchange | Note, recording: Recording) -> None:
        """Keep what has ended. What its bodies take has been counted."""
        ended = self._ended
        self.open.pop(recording.n, None)
        self.seq = recording.seq = self.seq + 1
        recording.size = size = size_of(what, recording)
        self.size = size = self.size + size
        if recording.take is not None:
            recording.size += recording.body_size
        ended.append((what, recording))
        if size > self.memory or len(ended) + len(self._pinned) > self.entries:
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
        ended, room = self._ended, self.entries - len(self._pinned)
        while ended and (self.size > self.memory or len(ended) > room):
            self.size -= ended.popleft()[1].size

    def get(self, n: int) -> Entry | None:
        """Return an entry by its number, if it is kept."""
        return self.open.get(n) or self._pinned.get(n) or next((each for each in self._ended if each[1].n == n), None)

    def pieces(self, numbers: Sequence[int], size: int) -> Iterator[list[Entry]]:
        """Yield the entries of these numbers, so many at a time, as far as they are kept when it is their turn.

        So whoever takes them slowly does not hold what has given way.
        """
        for start in range(0, len(numbers), size):
            piece = numbers[start : start + size]
            wanted = frozenset(piece)
            found = {each[1].n: each for each in self if each[1].n in wanted}
            found |= {n: self.open[n] for n in wanted & self.open.keys()}
            entries = [found[n] for n in piece if n in found]
            found.clear()
            yield entries

    def __iter__(self) -> Iterator[Entry]:
        yield from self._pinned.values()
        yield from self._ended

    def newest(self) -> Iterator[Entry]:
        """Yield what has ended, but for what is pinned, the newest first."""
        return reversed(self._ended)

    @property
    def first(self) -> int:
        """The lowest number that is kept, or that comes next."""
        return min((recording.n for _, recording in self), default=self.number + 1)

    def pin(self, n: int, *, pinned: bool) -> bool:
        """Pin an entry that has ended, or let it go again; return whether it is as asked for."""
        entry = self.get(n)
        if entry is None or n in self.open:
            return False
        recording = entry[1]
        if recording.is_pinned == pinned:
            return True
        if not pinned:
            del self._pinned[n]
            self._ended.append(entry)
        elif len(self._pinned) < self.entries // 2 and self._pinned_size + recording.size <= self.memory // 2:
            self._ended.remove(entry)
            self._pinned[n] = entry
        else:
            return False
        self.seq += 1
        recording.seq, recording.is_pinned = self.seq, pinned
        return True

    @property
    def _pinned_size(self) -> int:
        return sum(recording.size for _, recording in self._pinned.values())

    def clear(self, is_meant: Callable[[Entry], bool]) -> None:
        """Forget what has ended and is meant, but for what is pinned."""
        meant = [entry for entry in self._ended if is_meant(entry)]
        self.size -= sum(recording.size for _, recording in meant)
        self._ended = deque(entry for entry in self._ended if not is_meant(entry))

    def forget(self) -> None:
        """Forget everything, and what is under way as well."""
        for _, recording in self.open.values():
            for body in (recording.request_body, recording.reply_body):
                if body is not None:
                    body.stop()
        self.open.clear()
        self._ended.clear()
        self._pinned.clear()
        self.size = 0


def size_of(what: Exchange | Note, recording: Recording) -> int:
    """Return what an entry that has ended takes, besides its bodies."""
    target, asked, answer, picked = recording.target, recording.asked, recording.answer, recording.picked
    if isinstance(what, Note) or asked is None or answer is None or recording.reply is not None or not target.isascii():
        size = _odd_size(what, recording)
    else:
        size = ENTRY + len(target) + asked.size + len(answer.passed)
        if what.waits or len(what.attempts) > 1:
            size += PART * (len(what.attempts) + len(what.waits))
    if picked:
        size += PART * len(picked) + sum(map(len, chain.from_iterable(picked)))
    return size


def _odd_size(what: Exchange | Note, recording: Recording) -> int:
    """Return what the texts take of what was not passed on, or not as most are."""
    asked, answer, reply = recording.asked, recording.answer, recording.reply
    size = ENTRY + len(recording.headers) + 6 * len(recording.target)
    size += len(what.text) if isinstance(what, Note) else len(what.path)
    size += asked.size if asked is not None else 0
    size += len(reply) if reply is not None else 0
    if answer is not None:
        size += len(answer.passed) + (len(answer.body) if isinstance(answer.body, bytes) else 0)
    return size
