"""Faults of the upstream, in RFC 9209's names."""

from __future__ import annotations

import errno

from slproxy.errors import Overloaded, UpstreamFault, UpstreamTimeout, UpstreamUnreachable
from slproxy.upstream.connect_faults import CHECK_NETWORK
from slproxy.upstream.parser import NotHTTPError

# A connection that waits for nothing but its client for so long is given to a request that waits, in seconds.
STALL_TIMEOUT = 1.0

CHECK_STATUS = "If it does not pass, see https://status.salesloft.com."


class EvictedError(Exception):
    """The connection was taken from a stalled client, for requests that waited."""


def evicted() -> Overloaded:
    """Return the problem of a client that was evicted."""
    return Overloaded(
        f"For {STALL_TIMEOUT:g} s the client sent and took nothing, and others waited for its connection.",
        hint="Read and send without pauses, or raise upstream.max_connections.",
    )


# How the kernel says that a peer has answered nothing, by the last it heard of the network (tcp(7), TCP_USER_TIMEOUT).
_SILENCE = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}


def is_silence(error: BaseException | None) -> bool:
    """Tell whether nothing came back, so that connections of the same age may be dead too."""
    return isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno in _SILENCE)


def fault_of(error: OSError | NotHTTPError, *, timeout: float) -> UpstreamFault:
    """Return what an exchange came to that had begun, with RFC 9209's name. The exception's text stays in the log."""
    if isinstance(error, TimeoutError):
        return UpstreamTimeout(
            f"SalesLoft did not answer within {timeout:g} s.",
            maybe_sent=True,
            hint=CHECK_STATUS,
        )
    if isinstance(error, NotHTTPError):
        name, detail = "http_protocol_error", "SalesLoft's reply was not valid HTTP."
    else:
        name, detail = "connection_terminated", "The connection to SalesLoft broke before a reply came."
    return UpstreamUnreachable(detail, maybe_sent=True, hint=CHECK_NETWORK, proxy_error=name)
