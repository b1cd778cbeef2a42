"""Request ids: the client's own, or one that no other request has."""

from __future__ import annotations

import itertools
import re
import secrets

# What goes into a log, a header and a document as it stands: UUIDs, ULIDs, base64 and trace ids are among it.
_SANE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


def is_sane(given: str) -> bool:
    """Tell whether an id from outside may be logged and sent on as it is."""
    return _SANE.fullmatch(given) is not None


class RequestIds:
    """The ids of this process's requests: they tell one start from another, and count."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(5)
        self._numbers = itertools.count(1)

    def kept(self, given: str | None) -> str:
        """Return the id that a client gave its request, where it is a sane token, or else a new one."""
        return self.new() if given is None or not is_sane(given) else given

    def new(self) -> str:
        """Return an id that no other request has."""
        return f"{self._process}-{next(self._numbers)}"
