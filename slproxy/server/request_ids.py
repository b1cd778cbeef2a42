"""Request ids: the client's own, or one that no other request has."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Mapping

from multidict import istr

_NAME = istr("X-Request-Id")
# What goes into a log, a header and a document as it stands: UUIDs, ULIDs, base64 and trace ids are among it.
_SANE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


class RequestIds:
    """The ids of this process's requests: they tell one start from another, and count."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(5)
        self._numbers = itertools.count(1)

    def of(self, headers: Mapping[str, str]) -> str:
        """Return the id that a client gave its request, where it is a sane token, or a new one."""
        given = headers.get(_NAME)
        return self.new() if given is None or _SANE.fullmatch(given) is None else given

    def new(self) -> str:
        """Return an id that no other request has."""
        return f"{self._process}-{next(self._numbers)}"
