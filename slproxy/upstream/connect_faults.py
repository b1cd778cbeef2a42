"""Faults of connecting, in RFC 9209's names."""

from __future__ import annotations

import errno
import socket
import ssl

from slproxy.errors import UpstreamUnreachable

CHECK_NETWORK = "Check the network and upstream.api_url."
CHECK_CA = "If a company proxy re-signs TLS, set upstream.ca_file to its CA. Verification is never turned off."

# RFC 9209 §2.3 has a name for each way in which a connection does not come about.
_ERRNO = {
    errno.ECONNREFUSED: ("connection_refused", "SalesLoft's host refused the connection."),
    errno.EHOSTUNREACH: ("destination_ip_unroutable", "There is no route to SalesLoft's host."),
    errno.ENETUNREACH: ("destination_ip_unroutable", "There is no route to SalesLoft's host."),
}
_UNAVAILABLE = ("destination_unavailable", "SalesLoft's host cannot be reached.")


def connect_fault(error: Exception) -> UpstreamUnreachable:
    """Return the fault that a foreign exception stands for. Its text stays in the log."""
    hint = CHECK_NETWORK
    match error:
        case ssl.SSLCertVerificationError():
            name, detail, hint = "tls_certificate_error", "SalesLoft's certificate could not be verified.", CHECK_CA
        case ssl.SSLEOFError() | ConnectionResetError() | BrokenPipeError() | ConnectionAbortedError():
            name, detail = "connection_terminated", "SalesLoft's host closed the connection in the TLS handshake."
        case ssl.SSLError():
            name, detail = "tls_protocol_error", "The TLS handshake with SalesLoft failed."
        case socket.gaierror() | UnicodeError():
            name, detail = "dns_error", "The name of SalesLoft's host could not be resolved."
        case TimeoutError():
            name, detail = "connection_timeout", "Connecting to SalesLoft took too long."
        case OSError():
            name, detail = _ERRNO.get(error.errno or 0, _UNAVAILABLE)
        case _:
            name, detail = _UNAVAILABLE
    return UpstreamUnreachable(detail, maybe_sent=False, hint=hint, proxy_error=name)
