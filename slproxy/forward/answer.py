"""Answer: what of an upstream's reply reaches the client, or why none of it does."""

from __future__ import annotations

from collections.abc import Collection

from slproxy.errors import Loop, UpstreamUnreachable
from slproxy.forward.accepted import AcceptedHeaders
from slproxy.forward.browser import ISOLATED, ISOLATION
from slproxy.forward.headers import InexactHeaderError, Stopped, holds, returning
from slproxy.forward.messages import ReplyBody


def passed_on(
    reply: ReplyBody, *, asked: AcceptedHeaders, api_url: str, tokens: Collection[str]
) -> tuple[bytes, frozenset[bytes], Stopped | None]:
    """Return the headers of a reply as they are passed on, a line each, their names, and which of them are not.

    ``asked`` are the headers of the request, ``tokens`` its bearers.

    Raises:
        UpstreamUnreachable: its head must not be passed on.
        Loop: it is such a problem, of this proxy or of another on the way; its ``Proxy-Status`` would be lost.
    """
    if holds(reply.headers, reply.reason, tokens):
        raise UpstreamUnreachable(
            "SalesLoft's reply has the token in its headers, so nothing of it was passed on.",
            maybe_sent=True,
            hint="Ask whoever runs the host in upstream.api_url: it should not show what it was sent.",
            proxy_error="http_protocol_error",
        )
    if reply.status == Loop.status and Loop.proxy_error in (reply.header("Proxy-Status") or ""):
        raise Loop(
            "The upstream says that the request goes round in a circle of proxies.",
            hint="Point upstream.api_url at SalesLoft, not at a proxy that leads back here.",
        )
    try:
        passed, names, stopped = returning(
            reply.headers, api_url=api_url, host=asked.host, without=ISOLATED if asked.is_run else frozenset()
        )
        reply.reason.encode("utf-8")
    except (InexactHeaderError, UnicodeEncodeError) as error:
        raise UpstreamUnreachable(
            "SalesLoft's reply has a header that cannot be passed on exactly.",
            maybe_sent=True,
            hint="Ask whoever runs the host in upstream.api_url: headers have to be UTF-8.",
            proxy_error="http_protocol_error",
        ) from error
    return (passed + ISOLATION if asked.is_run else passed), names, stopped
