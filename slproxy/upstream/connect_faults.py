"""Faults of connecting, in RFC 9209's names."""

from __future__ import annotations

import errno
import socket
import ssl

from slproxy.config import EgressProxy
from slproxy.errors import UpstreamUnreachable

CHECK_NETWORK = "Check the network and upstream.api_url."
CHECK_CA = "If a company proxy re-signs TLS, set upstream.ca_file to its CA. Verification is never turned off."

# RFC 9209 §2.3 has a name for each way in which a connection does not come about; and what happened, to whom.
_ERRNO = {
    errno.ECONNREFUSED: ("connection_refused", "{host} refused the connection."),
    errno.EHOSTUNREACH: ("destination_ip_unroutable", "There is no route to {host}."),
    errno.ENETUNREACH: ("destination_ip_unroutable", "There is no route to {host}."),
}
_UNAVAILABLE = ("destination_unavailable", "{host} cannot be reached.")


def connect_fault(error: Exception, *, through: EgressProxy | None = None) -> UpstreamUnreachable:
    """Return what an exception means that came of connecting to SalesLoft. Its text stays in the log."""
    name, what = _meaning(error)
    detail = what.format(host="SalesLoft's host", peer="SalesLoft", owner="SalesLoft's")
    if through is not None:
        detail = f"{detail[:-1]} (through the proxy {through.name})."
    hint = CHECK_CA if name == "tls_certificate_error" else CHECK_NETWORK
    return UpstreamUnreachable(detail, maybe_sent=False, hint=hint, proxy_error=name)


def proxy_fault(error: Exception, proxy: EgressProxy, named_in: str) -> UpstreamUnreachable:
    """Return what an exception means that came of connecting to an egress proxy, which ``named_in`` names."""
    name, what = _meaning(error)
    detail = what.format(host=(host := f"the proxy {proxy.name}"), peer=host, owner=f"{host}'s")
    hint = CHECK_CA if name == "tls_certificate_error" else f"Is the proxy up, and its address right? See {named_in}."
    return UpstreamUnreachable(detail[0].upper() + detail[1:], maybe_sent=False, hint=hint, proxy_error=name)


def _meaning(error: Exception) -> tuple[str, str]:
    match error:
        case ssl.SSLCertVerificationError():
            return "tls_certificate_error", "{owner} certificate could not be verified."
        case ssl.SSLEOFError() | ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            return "connection_terminated", "{host} closed the connection in the TLS handshake."
        case ssl.SSLError():
            return "tls_protocol_error", "The TLS handshake with {peer} failed."
        case socket.gaierror() | UnicodeError():
            return "dns_error", "The name of {host} could not be resolved."
        case TimeoutError():
            return "connection_timeout", "Connecting to {peer} took too long."
        case _:
            return _ERRNO.get(getattr(error, "errno", None) or 0, _UNAVAILABLE)
