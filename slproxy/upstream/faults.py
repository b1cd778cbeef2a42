"""Faults of the upstream, in RFC 9209's names."""

from __future__ import annotations

import errno

import aiohttp
from aiohttp.http import HttpProcessingError

from slproxy.errors import Overloaded, UpstreamFault, UpstreamTimeout, UpstreamUnreachable

# A connection that waits for nothing but its client for so long is given to a request that waits, in seconds.
STALL_TIMEOUT = 1.0


class EvictedError(aiohttp.ClientError):
    """The connection was taken from a stalled client, for requests that waited."""


def evicted() -> Overloaded:
    """Return the problem of a client that was evicted."""
    return Overloaded(
        f"For {STALL_TIMEOUT:g} s the client sent and took nothing, and others waited for its connection.",
        hint="Read and send without pauses, or raise upstream.max_connections.",
    )


_CHECK_NETWORK = "Check the network and upstream.api_url."

# How the kernel says that a peer has answered nothing, by the last it heard of the network (tcp(7), TCP_USER_TIMEOUT).
_SILENCE = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}

# RFC 9209 §2.3 has a name for each way in which a connection does not come about.
_ERRNO = {
    errno.ECONNREFUSED: ("connection_refused", "SalesLoft's host refused the connection."),
    errno.EHOSTUNREACH: ("destination_ip_unroutable", "There is no route to SalesLoft's host."),
    errno.ENETUNREACH: ("destination_ip_unroutable", "There is no route to SalesLoft's host."),
}


def is_silence(error: BaseException) -> bool:
    """Tell whether nothing came back, so that connections of the same age may be dead too."""
    return isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno in _SILENCE)


def not_http() -> UpstreamUnreachable:
    """Return the fault of an upstream whose reply does not parse."""
    return UpstreamUnreachable(
        "SalesLoft's reply was not valid HTTP.", maybe_sent=True, hint=_CHECK_NETWORK, proxy_error="http_protocol_error"
    )


def fault_of(error: Exception, *, maybe_sent: bool, timeout: float) -> UpstreamFault:
    """Return the fault that a foreign exception stands for, with RFC 9209's name. Its text stays in the log."""
    hint = _CHECK_NETWORK
    match error:
        case aiohttp.ClientConnectorCertificateError():
            name, detail = "tls_certificate_error", "SalesLoft's certificate could not be verified."
            hint = "If a company proxy re-signs TLS, set upstream.ca_file to its CA. Verification is never turned off."
        case aiohttp.ClientConnectorSSLError():
            name, detail = "tls_protocol_error", "The TLS handshake with SalesLoft failed."
        case aiohttp.ClientConnectorDNSError():
            name, detail = "dns_error", "The name of SalesLoft's host could not be resolved."
        case TimeoutError() if not maybe_sent:
            name, detail = "connection_timeout", "Connecting to SalesLoft took too long."
        case TimeoutError():
            return UpstreamTimeout(
                f"SalesLoft did not answer within {timeout:g} s.",
                maybe_sent=maybe_sent,
                hint="If it does not pass, see https://status.salesloft.com.",
            )
        case aiohttp.ClientConnectorError() if error.os_error.errno in (None, errno.ECONNRESET):
            name, detail = "connection_terminated", "SalesLoft's host closed the connection in the TLS handshake."
        case aiohttp.ClientConnectorError():
            name, detail = _ERRNO.get(
                error.os_error.errno or 0, ("destination_unavailable", "SalesLoft's host cannot be reached.")
            )
        case HttpProcessingError():
            return not_http()
        case _:
            name, detail = "connection_terminated", "The connection to SalesLoft broke before a reply came."
    return UpstreamUnreachable(detail, maybe_sent=maybe_sent, hint=hint, proxy_error=name)
