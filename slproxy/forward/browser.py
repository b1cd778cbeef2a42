"""Browsers: which pages may ask, and what of a reply may run in the proxy's origin.

The protocols are those of the Fetch standard, W3C Fetch Metadata and Service Workers. A page cannot change the headers
that are looked at here; a client that is no browser sends none of them, and gets each reply as it came.
"""

from __future__ import annotations

from slproxy.errors import OriginRefused
from slproxy.forward.host import HOST
from slproxy.http import ByName, encoded

# What a browser makes a document or a worker of, with the rights of the origin that it came from.
_RUN = frozenset(
    {b"document", b"embed", b"fencedframe", b"frame", b"iframe", b"object", b"sharedworker", b"worker", b"xslt"}
)
# For what runs in no origin: https://www.w3.org/TR/CSP3/#directive-sandbox. A second policy only narrows the first.
ISOLATION = encoded([("Content-Security-Policy", "sandbox"), ("X-Content-Type-Options", "nosniff")])
# What the upstream says of the same, which is left out.
ISOLATED = frozenset({"x-content-type-options"})


def check_origin(headers: ByName, host: str, allow_origins: frozenset[str]) -> None:
    """Check that no web page of another origin asks, and nothing asks for a service worker.

    Raises:
        OriginRefused: one does.
    """
    if b"script" in _values(headers, b"service-worker") or b"serviceworker" in _values(headers, b"sec-fetch-dest"):
        raise OriginRefused(
            "A service worker would stand between this proxy and all pages that use it.",
            hint="Register it from a server of your own.",
        )
    origins = {value.decode("latin-1") for value in headers.get(b"origin", ())}
    if origins and origins <= allow_origins:
        return
    if _is_cross_site(headers) or any(not _same_origin(origin, host) for origin in origins):
        raise OriginRefused(
            "A web page of another origin may not use this proxy.",
            hint="Add the page's origin to listen.allow_origins if it is yours.",
        )


def _is_cross_site(headers: ByName) -> bool:
    """Tell whether a browser says that another site's page asks.

    A page on another port of localhost is "same-site". Of its requests without ``Origin``, such as an image's, only the
    link that a person follows passes: the page learns nothing from it.
    """
    site, mode, destination, user = (
        headers.get(name, (b"",))[0].strip().lower()
        for name in (b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-user")
    )
    if b"cross-site" in _values(headers, b"sec-fetch-site"):
        return True
    followed = mode == b"navigate" and destination == b"document" and user == b"?1"
    return site == b"same-site" and b"sec-fetch-mode" in headers and b"origin" not in headers and not followed


def _values(headers: ByName, name: bytes) -> list[bytes]:
    return [value.strip().lower() for value in headers.get(name, ())]


def _same_origin(origin: str, host: str) -> bool:
    """Tell whether ``origin`` is the very host and port that ``Host`` names; the proxy speaks plain HTTP."""
    scheme, _, authority = origin.partition("://")
    page, proxy = HOST.fullmatch(authority), HOST.fullmatch(host)
    # A browser writes no colon without a port (RFC 6454 §6.1).
    if scheme.lower() != "http" or page is None or page["port"] == "" or proxy is None:
        return False
    return (page["name"].lower(), int(page["port"] or 80)) == (proxy["name"].lower(), int(proxy["port"] or 80))


def is_run(asked: ByName) -> bool:
    """Tell whether a browser makes a document or a worker of the reply, which is to be isolated then.

    HTML from the API would run in the proxy's origin, read whatever it answers, and act as the user (docs/hazards.md,
    B1).

    To a host that is not "potentially trustworthy", such as one of ``listen.accept_hosts``, it does not say what for;
    of its documents it says that they may be upgraded (W3C Upgrade Insecure Requests §3.2.1).
    """
    if b"sec-fetch-dest" in asked:
        return not _RUN.isdisjoint(_values(asked, b"sec-fetch-dest"))
    return b"upgrade-insecure-requests" in asked
