"""What a client asks of pacing in its headers: its label, its priority, its longest wait."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from slproxy.http import ByName

_LABEL = re.compile(r"[!-~][ -~]{0,62}[!-~]|[!-~]")
_PRODUCT = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_ELEMENT = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*"?)+')
_WAIT = re.compile(r'(?i)\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?')


@dataclass(frozen=True, kw_only=True, slots=True)
class Preferences:
    """What a client asks of pacing: how it is called, whether others go first, and how long it waits in seconds.

    ``budget`` is what it may spend a minute by the settings, where it is known by a key.
    """

    client: str = "unknown"
    bulk: bool = False
    max_wait: float = math.inf
    budget: int | None = None


def parse_preferences(headers: ByName) -> Preferences:
    """Return what a request's headers ask for; what is not understood is not asked for."""
    priority = headers.get(b"x-slproxy-priority")
    bulk = priority is not None and len(priority) == 1 and priority[0].strip().lower() == b"bulk"
    label = headers.get(b"x-slproxy-client")
    if label and _LABEL.fullmatch(name := label[0].decode("latin-1").strip()):
        client = name
    else:
        client = _product(headers[b"user-agent"][0]) if b"user-agent" in headers else "unknown"
    max_wait = math.inf
    if b"prefer" in headers:
        # RFC 7240 §2: the first of several counts. A comma within quotes separates nothing (RFC 9110 §5.6.4).
        wishes = _ELEMENT.findall(b",".join(headers[b"prefer"]).decode("latin-1"))
        waits = [float(match[1]) for each in wishes if (match := _WAIT.fullmatch(each))]
        max_wait = waits[0] if waits else math.inf
    return Preferences(client=client, bulk=bulk, max_wait=max_wait)


def _product(agent: bytes) -> str:
    found = _PRODUCT.match(agent[:64].decode("latin-1"))
    return found[0] if found else "unknown"
