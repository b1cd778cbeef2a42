"""Watch in words: what ``slproxy status --watch`` shows, as a screen or as lines, given what ``status.json`` says."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence

from slproxy.cli.describe import count
from slproxy.cli.status_rows import budget_rows, left_text, proxy_text, renewal_text, top
from slproxy.config import Settings
from slproxy.untrusted import printable

Document = Mapping[str, object]

ANOTHER_VERSION = "up, but another version: restart it"
# The width of the bar of the budget, and of the columns of a request but its path.
BAR = 40
_COLUMNS = "{at:8} {client:10.10} {method:7.7} {path} {status:>6} {attempts:>4} {cost:>4} {waited:>6} {took:>9}"
_OTHERS = 62
# What a path has at least.
_PATH = 16


def screen(proxy: Document | None, settings: Settings, *, at: float, width: int, height: int) -> list[str]:
    """Return the lines of a screen of that size; ``at`` is Unix time."""
    lines = [f"{f'slproxy status, profile {settings.profile}':<{max(width - 8, 0)}}{_clock(at)}"]
    try:
        bar = [] if (budget := _budget(proxy)) is None else [("", _bar(budget))]
        head = [("proxy", proxy_text(proxy, settings)), *bar, *budget_rows(proxy), *_in_flight(proxy)]
        head.append(("renewal", renewal_text(proxy) if proxy else ""))
        lines += [line for name, value in head if value for line in _folded(f"{name:<9} ", value, width=width)]
        lines += ["", *_table(proxy, width=width)] if proxy and "recent" in proxy else []
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError):
        lines = [lines[0], f"{'proxy':<9} {ANOTHER_VERSION}"]
    return lines[: max(height, 1)]


def _table(proxy: Document, *, width: int) -> Iterator[str]:
    """Yield the last requests and what else happened, the newest first."""
    recent = _recent(proxy)
    if recent is None:
        yield "The last requests are not kept: the inspector is off (inspect.enabled)."
        return
    longest = max((len(str(row["path"])) for row in recent if row["kind"] == "request"), default=0)
    path_width = max(min(longest, width - _OTHERS), _PATH)
    names = ("time", "client", "method", "status", "sent", "cost", "waited", "took")
    heads = dict(zip(("at", *names[1:4], "attempts", *names[5:]), names, strict=True))
    yield _COLUMNS.format(**heads, path=f"{'path':<{path_width}}")
    for row in reversed(recent):
        if row["kind"] != "request":
            yield from _folded(f"{_clock(row['at'])}  ", f"{row['kind']}: {row['note']}", width=width)
            continue
        path = str(row["path"])
        yield _COLUMNS.format(
            at=_clock(row["at"]),
            client=row["client"] or "",
            method=row["method"],
            path=f"{path if len(path) <= path_width else path[: path_width - 1] + '…':<{path_width}}",
            status=row["status"] or "",
            attempts=row["attempts"],
            cost="" if row["cost"] is None else row["cost"],
            waited=_seconds(_waited(row)),
            took=_took(row),
        )
        if faults := _faults(row):
            yield from _folded(" " * 9, ", ".join(faults), width=width)


def _folded(first: str, text: str, *, width: int) -> list[str]:
    """Return lines that fit, of a text whose end may be what to do; the ones below begin under the first's text."""
    return textwrap.wrap(
        printable(text), width, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
    )


class Lines:
    """What is new since the last look, a line each; times are local ones."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._told: dict[str, str] = {}
        self._seen: set[tuple[object, object]] = set()

    def news(self, proxy: Document | None, *, at: float) -> list[str]:
        """Return the lines of another look."""
        try:
            return [*self._changed(proxy, _clock(at)), *self._happened(proxy)]
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            return [*self._once("proxy", ANOTHER_VERSION, _clock(at))]

    def _changed(self, proxy: Document | None, clock: str) -> Iterator[str]:
        yield from self._once("proxy", proxy_text(proxy, self._settings), clock)
        if (budget := _budget(proxy)) is not None:
            yield from self._once("budget", "; ".join(_budget_parts(budget)), clock)
        if proxy is not None:
            yield from self._once("renewal", renewal_text(proxy), clock)

    def _once(self, name: str, text: str, clock: str) -> Iterator[str]:
        if text and self._told.get(name) != text:
            self._told[name] = text
            yield f"{clock} {name}: {text}"

    def _happened(self, proxy: Document | None) -> Iterator[str]:
        if proxy is None or (recent := _recent(proxy)) is None:
            return
        # Of another process, numbers begin anew.
        known = {(proxy.get("pid"), row["n"]): row for row in recent}
        for key, row in known.items():
            if key not in self._seen and row["kind"] == "request":
                yield f"{_clock(row['at'])} {_request_line(row)}"
            elif key not in self._seen and row["kind"] != "renewal":  # a renewal is told above
                yield f"{_clock(row['at'])} {row['kind']}: {row['note']}"
        self._seen = set(known)


def _request_line(row: Document) -> str:
    parts = [f"{row['method']} {row['path']} {row['status'] or '-'} {_took(row)}"]
    if row["client"]:
        parts.append(str(row["client"]))
    if row["attempts"] != 1:
        parts.append(count(int(str(row["attempts"])), "attempt"))
    if row["cost"] not in (None, 1):
        parts.append(f"cost {row['cost']}")
    if waited := _seconds(_waited(row)):
        parts.append(f"waited {waited}")
    return ", ".join([*parts, *_faults(row)])


def _faults(row: Document) -> list[str]:
    not_retried = f"not retried: {row['not_retried']}" if row["not_retried"] else ""
    return [str(each) for each in (row["error"], row["ended"], not_retried) if each]


def _waited(row: Document) -> float:
    waits = (row["wait_ms"], row["token_ms"])
    return sum(each for each in waits if isinstance(each, float | int)) / 1000


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 0.05 else ""


def _took(row: Document) -> str:
    took = row["ms"]
    if not isinstance(took, float | int):
        return ""
    return f"{took:.1f} ms" if took < 10_000 else f"{took / 1000:.1f} s"


def _in_flight(proxy: Document | None) -> list[tuple[str, str]]:
    requests = proxy.get("requests") if proxy else None
    others = requests["in_flight"] - 1 if isinstance(requests, dict) else 0  # ours is one
    return [("in flight", count(others, "request"))] if others > 0 else []


def _budget(proxy: Document | None) -> Document | None:
    budget = proxy.get("budget") if proxy else None
    return budget if isinstance(budget, dict) else None


def _budget_parts(budget: Document) -> list[str]:
    waiting = budget["waiting"]
    assert isinstance(waiting, dict)
    return [
        left_text(budget),
        *([f"{count(sum(waiting.values()), 'request')} waiting: {top(waiting)}"] if waiting else []),
    ]


def _bar(budget: Document) -> str:
    left, ours = budget["remaining"], budget["ours"]
    assert isinstance(left, float | int)
    assert isinstance(ours, float | int)
    full = round(BAR * min(max(left / ours, 0.0), 1.0))
    return f"[{'#' * full}{'.' * (BAR - full)}]"


def _recent(proxy: Document) -> Sequence[Document] | None:
    recent = proxy.get("recent")
    return recent if isinstance(recent, list) else None


def _clock(at: object) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at if isinstance(at, float | int) else 0))
