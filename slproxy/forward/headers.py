"""Headers: which pass, which stop here, and which are the proxy's own. Strip first, inject last.

1. The client's headers are never modified; the outgoing ones are built from them.
2. What is injected is injected after everything was stripped, so that a client which names ``Authorization`` in its
   ``Connection`` header cannot take the bearer off (golang/go#50580, CVE-2021-33197).
3. Repeated headers stay repeated, in order and in the case they came in.
4. A header that is not UTF-8 is refused, never altered: servers and clients read such bytes in different ways, or drop
   them without a word.

Raw headers are ``(name, value)`` pairs of bytes as they stood on the wire; what is passed on are lines of bytes.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Collection
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from slproxy.config import SCHEMA, Via
from slproxy.http import ByName, Fields, RawHeaders, encoded
from slproxy.observe import is_credential, milliseconds

# RFC 9110 §7.6.1, and Keep-Alive of RFC 2068. The proxy frames each hop anew.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
# Besides those, what a client may not tell the upstream: its credentials, its cookies (a browser sends those of every
# application on localhost), and hints about where it stands that the upstream could believe.
_CLIENT_ONLY = frozenset({"host", "expect", "authorization", "cookie", "forwarded", "x-real-ip"})
_CLIENT_ONLY_PREFIXES = ("proxy-", "x-slproxy-", "x-forwarded-")
# What an upstream may not tell the client: Set-Cookie would land on localhost for all its ports (RFC 6265 §8.5),
# the others change what a browser does with localhost from then on.
_UPSTREAM_ONLY = frozenset(
    {
        "alt-svc",
        "clear-site-data",
        "proxy-authenticate",
        "proxy-authentication-info",
        "service-worker-allowed",
        "set-cookie",
        "strict-transport-security",
    }
)
_UPSTREAM_ONLY_PREFIXES = ("access-control-", "x-slproxy-")

# W3C Trace Context §3.
_TRACE_CONTEXT = frozenset({b"traceparent", b"tracestate"})

# Names no other header.
_USUAL_CONNECTION = frozenset({b"keep-alive", b"close"})

# No reply has more names than this, nor are all of them longer together, in bytes.
MANY_NAMES, LONG_NAMES = 64, 2048

# A token of so many bytes is in no reply by chance.
LONG_TOKEN = 20

# A member of a list (RFC 9110 §5.6.1); a quoted string that does not end takes in the rest.
_MEMBER = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
_MANGLED = re.compile(r"^\s|[\x00-\x1f\x7f]")


class Stopped(NamedTuple):
    """Which headers of a reply stop here: their places, what picks them out of all, and those that hold credentials."""

    places: tuple[int, ...] = ()
    pick: Callable[[RawHeaders], RawHeaders] = tuple
    credentials: tuple[tuple[int, bytes], ...] = ()


class InexactHeaderError(ValueError):
    """A header whose bytes could not be passed on as they came; the message names the header, never its value."""


def stripped(headers: RawHeaders) -> bytes:
    """Return the client's headers, a line each, less what is hop-by-hop, what is the proxy's to say, and credentials.

    Raises:
        InexactHeaderError: a header holds bytes that are not UTF-8.
    """
    named = _named_by_connection(headers)
    lines: list[bytes] = []
    for name, value in headers:
        key, stops = _client_verdict(name)
        if not stops and key not in named:
            lines.append(b"%b: %b\r\n" % (name, value))
    return _exact(lines)


def injected(*, bearer: str, via: str | None) -> bytes:
    """Return what follows the stripped headers on their way upstream. ``Host`` follows from where they are sent."""
    own = [("Authorization", f"Bearer {bearer}")]
    return encoded(own if via is None else [*own, ("Via", via)])


def with_context(lines: bytes, context: Fields) -> bytes:
    """Return the stripped headers with a trace context of our own in place of the client's, of which nothing stays."""
    kept = [line for line in lines.splitlines(keepends=True) if _name_of(line) not in _TRACE_CONTEXT]
    return b"".join(kept) + encoded(context)


def _name_of(line: bytes) -> bytes:
    return line.partition(b":")[0].lower()


def sends_via(setting: Via, *, api_url: str) -> bool:
    """Tell whether requests name the proxy: by ``auto`` where one may come back, so not to SalesLoft's own host.

    nginx does not compress what it answers to a request with ``Via`` (``gzip_proxied``).
    """
    return setting == "on" or (setting == "auto" and api_url != SCHEMA["upstream.api_url"].default)


def returning(
    headers: RawHeaders, *, api_url: str, host: str, without: frozenset[str] = frozenset()
) -> tuple[bytes, frozenset[bytes], Stopped | None]:
    """Return the upstream's headers as the client gets them, a line each, with ``Location`` pointing at the proxy.

    Besides, their names in lower case; and which of them stop here, or ``None`` where that does not tell all of the
    difference.

    ``host`` is what the client called the proxy (its ``Host`` header); ``api_url`` is the upstream's origin.
    ``without`` names what is left out besides.

    Raises:
        InexactHeaderError: a header holds bytes that are not UTF-8.
    """
    names, values = zip(*headers, strict=True) if headers else ((), ())
    if not without and len(names) <= MANY_NAMES and len(b"".join(names)) <= LONG_NAMES:
        template, connection, passed, stopped = _template(names)
        if template and (connection is None or values[connection] in _USUAL_CONNECTION):
            lines = template % values
            if lines.isascii():
                return lines, passed, stopped
    lines = _returning_by_value(headers, api_url=api_url, host=host, without=without)
    return lines, frozenset(map(_name_of, lines.splitlines())), None


def _returning_by_value(headers: RawHeaders, *, api_url: str, host: str, without: frozenset[str]) -> bytes:
    """Do what ``returning`` does, whatever the headers are."""
    left_out = _named_by_connection(headers) | without
    lines: list[bytes] = []
    for name, value in headers:
        key, stops = _upstream_verdict(name)
        if stops or key in left_out:
            continue
        if key == "location":
            lines.append(b"%b: %b\r\n" % (name, _at_the_proxy(_decoded(name, value), api_url, host).encode()))
        elif key != "proxy-status":
            lines.append(b"%b: %b\r\n" % (name, value))
        elif members := _without_ours(_decoded(name, value)):
            lines.append(b"%b: %b\r\n" % (name, members.encode()))
    return _exact(lines)


@functools.lru_cache(maxsize=256)  # the replies of an endpoint have the same names, in the same order
def _template(names: tuple[bytes, ...]) -> tuple[bytes, int | None, frozenset[bytes], Stopped]:
    """Return the lines of a reply with these names, to be filled with its values, and which is that of ``Connection``.

    Last, which of them pass, in lower case, and which stop here.

    The lines are empty where more than names decides. Of what stops here, ``%.0b`` makes nothing.
    """
    lines, connections, stopped = b"", [], []
    undecided = b"", None, frozenset[bytes](), Stopped()
    for index, name in enumerate(names):
        key, stops = _upstream_verdict(name)
        if key in ("location", "proxy-status"):
            return undecided
        if key == "connection":
            connections.append(index)
        if stops:
            stopped.append(index)
        lines += b"%.0b" if stops else name.replace(b"%", b"%%") + b": %b\r\n"
    if len(connections) > 1:
        return undecided
    passed = frozenset(name.lower() for index, name in enumerate(names) if index not in stopped)
    return lines, connections[0] if connections else None, passed, _stopped(names, stopped)


def _stopped(names: tuple[bytes, ...], places: list[int]) -> Stopped:
    plain = tuple(place for place in places if not is_credential(names[place]))
    return Stopped(
        places=plain,
        pick=operator.itemgetter(*plain) if len(plain) > 1 else lambda headers: [headers[place] for place in plain],
        credentials=tuple((place, names[place]) for place in places if place not in plain),
    )


def holds(headers: RawHeaders, reason: str, tokens: Collection[str]) -> bool:
    """Tell whether the head of a reply gives away one of the tokens, percent-encoded or in another case as well.

    One that is so short that it may be a word, as no token of SalesLoft's is, counts where it stands by itself.
    """
    for token in tokens:
        size = len(token)  # which most of a head is shorter than
        for name, value in headers:
            if (len(value) >= size or len(name) >= size) and _shows(b"%b\n%b" % (name, value), token):
                return True
        if len(reason) >= size and _shows(reason.encode("utf-8", "replace"), token):
            return True
    return False


def _shows(text: bytes, token: str) -> bool:
    text, needle = b"%b\n%b" % (text, unquote_to_bytes(text)), token.encode()
    if len(needle) >= LONG_TOKEN:
        return needle.lower() in text.lower()
    return re.search(rb"(?<![\w.-])%b(?![\w.-])" % re.escape(needle), text) is not None


def _client_verdict(raw: bytes) -> tuple[str, bool]:
    """Return the key that a header goes by, and whether it stops here on its way up."""
    # Rack and WSGI read `_` as `-`: Authorization spelt with an underscore would be a second credential.
    key = _key(raw).replace("_", "-")
    return key, key in _HOP_BY_HOP | _CLIENT_ONLY or key.startswith(_CLIENT_ONLY_PREFIXES)


def _upstream_verdict(raw: bytes) -> tuple[str, bool]:
    """Return the key that a header goes by, and whether it stops here on its way down."""
    key = _key(raw)
    return key.replace("_", "-"), key in _HOP_BY_HOP | _UPSTREAM_ONLY or key.startswith(_UPSTREAM_ONLY_PREFIXES)


def _key(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape").lower()


def _named_by_connection(headers: RawHeaders) -> frozenset[str]:
    """Return the names that ``Connection`` makes hop-by-hop, less ``Content-Length``: framing stays with us."""
    lines = [value for name, value in headers if name.lower() == b"connection"]
    tokens = b",".join(lines).decode("latin-1").lower().replace("_", "-").split(",")
    return frozenset(token.strip() for token in tokens) - {"content-length"}


def _exact(lines: list[bytes]) -> bytes:
    """Return header lines in one. Raises InexactHeaderError where one is not UTF-8."""
    joined = b"".join(lines)
    if not joined.isascii():
        for line in lines:
            _decoded(line.partition(b":")[0], line)
    return joined


def _decoded(name: bytes, raw: bytes) -> str:
    """Return a header's name or value as text."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _inexact(name) from None


def _inexact(name: bytes) -> InexactHeaderError:
    """Return the error for a header that others would not read as it came."""
    return InexactHeaderError(f"the header {name.decode('ascii', 'replace')} holds bytes that are not UTF-8")


def _without_ours(proxy_status: str) -> str:
    """Return the members of a ``Proxy-Status`` (RFC 9209 §2) that nobody could take for the proxy's own."""
    if "slproxy" not in proxy_status.replace("\\", "").lower():
        return proxy_status
    members = (member.strip() for member in _MEMBER.findall(proxy_status))
    return ", ".join(member for member in members if "slproxy" not in member.replace("\\", "").lower())


def _at_the_proxy(location: str, api_url: str, host: str) -> str:
    """Rewrite a ``Location`` that points at the upstream; one that points elsewhere, or is relative, stays."""
    if _MANGLED.search(location):  # urlsplit would drop these without a word, and the cut below be in the wrong place
        return location
    try:
        upstream = urlsplit(api_url)
        # //host/path takes the scheme that it was got by (RFC 3986 §4.2).
        there = urlsplit(location, scheme=upstream.scheme)
        same = (there.scheme, there.hostname, _port(there.scheme, there.port)) == (
            upstream.scheme,
            upstream.hostname,
            _port(upstream.scheme, upstream.port),
        )
    except ValueError:  # no URL: not ours to judge
        return location
    if not same:
        return location
    authority_end = location.index("//") + 2 + len(there.netloc)
    return f"http://{host}{location[authority_end:]}"


def _port(scheme: str, port: int | None) -> int | None:
    return port if port is not None else {"http": 80, "https": 443}.get(scheme)


def server_timing(*, total: float, upstream: float, wait: float) -> str:
    """Return the value of ``Server-Timing``, in ms: the proxy's own share, the upstream's and the waiting."""
    own = total - upstream - wait
    proxy = milliseconds(own if own > 0.0 else 0.0)
    return f"slproxy;dur={proxy}, upstream;dur={milliseconds(upstream)}, wait;dur={milliseconds(wait)}"


def has_passed(headers: ByName, pseudonym: str) -> bool:
    """Tell whether a ``Via`` header names this very process (RFC 9110 §7.6.3)."""
    needle = pseudonym.encode()
    return any(needle in received.split() for line in headers.get(b"via", ()) for received in line.split(b","))
