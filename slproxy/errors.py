"""Errors: what can go wrong, whose fault it is, and what to do about it.

::

    SlproxyError
    ├── ConfigError                the user's: a setting, a flag, a file        exit 2
    ├── StoreError                 the machine's: the token store               exit 1
    │   └── StaleWriteError UnwritableError UndecryptableError DamagedError
    ├── LoginError                 the login's: denied, no answer               exit 1
    │   ├── ForeignCallbackError   another login's callback: its state is wrong
    │   ├── PasteError             something else was pasted
    │   └── OtherLoginError        somebody else is logged in
    ├── ClientLeft                 nobody's: there is nobody left to answer
    ├── OutputError                standard output's                            exit 1
    ├── CannotRunError             of the program that `run` is to run
    ├── OtherUserError             another user's, who listens on the port      exit 1
    └── Problem                    what the proxy answers a request itself      exit 1
        ├── Refused                the client's
        │   ├── NotFound BadRequest BadTarget TooLarge MethodRefused
        │   └── HostRefused OriginRefused UserRefused KeyRequired Loop NotRecorded
        ├── TokenUnavailable       the credentials'
        │   ├── LoginRequired                                                   exit 3
        │   └── CredentialsRefused TokenEndpointDown
        ├── UpstreamFault          the upstream's
        │   └── UpstreamUnreachable UpstreamTimeout
        └── ProxyFault             ours
            └── InternalError OverBudget Overloaded Draining AuditUnwritable

A message says what happened; its hint says what to do next. Neither ever holds a secret, nor another library's text:
that text travels as ``__cause__`` and goes to the log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

NO_MEMBERS: Mapping[str, str] = MappingProxyType({})


class SlproxyError(Exception):
    """Everything slproxy raises on purpose."""

    exit_code: ClassVar[int] = 1

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint

    @property
    def sentence(self) -> str:
        """What happened and what to do, in one line."""
        detail = "; ".join(self.detail.splitlines()).replace(":; ", ": ")
        return f"{detail}{' ' if detail.endswith('.') else '; '}{self.hint}" if self.hint else detail


class ConfigError(SlproxyError):
    """A setting that is unknown, of the wrong type or in conflict; names key, place and what was expected."""

    exit_code = 2


class CannotRunError(SlproxyError):
    """A program that is not there, or cannot be run; ``code`` is what env(1) returns then."""

    def __init__(self, detail: str, *, hint: str, code: int) -> None:
        super().__init__(detail, hint=hint)
        self.code = code


class StoreError(SlproxyError):
    """The token store cannot be read, written or trusted."""


class StaleWriteError(StoreError):
    """A token that is older than the one in the store; it was not written."""


class UnwritableError(StoreError):
    """A renewed token could not be stored now, so the renewal was not begun."""


class UndecryptableError(StoreError):
    """The stored token cannot be decrypted: its key is missing or wrong. It was left as it is."""


class DamagedError(StoreError):
    """What was stored is no token; it was quarantined under another name."""


class LoginError(SlproxyError):
    """A login that did not end in a token; the token from before, if any, is as it was."""


class ForeignCallbackError(LoginError):
    """A callback that this login did not ask for: somebody else's, who shall not be able to end it."""


class PasteError(LoginError):
    """What was pasted is no answer to this login, nor to another: whoever pasted it may try again."""


class OtherLoginError(LoginError):
    """The profile holds the login of somebody else, who was not to be replaced."""


class ClientLeft(SlproxyError):  # noqa: N818  # it is no error, and nobody is told of it
    """The client has left while its request waited: nothing of it is sent."""


class OutputError(SlproxyError):
    """What a command had to say could not be written."""


class OtherUserError(SlproxyError):
    """What listens where the proxy should is another user's, of that ``uid``: it was told nothing."""

    def __init__(self, uid: int, where: str) -> None:
        super().__init__(
            f"Another user's program (uid {uid}) listens {where}; it was told nothing.",
            hint="Choose another listen.port, or have it stopped.",
        )
        self.uid = uid


class Problem(SlproxyError):  # noqa: N818  # RFC 9457's own word
    """An answer of the proxy's own: ``application/problem+json`` (RFC 9457) with ``Proxy-Status`` (RFC 9209)."""

    type: ClassVar[str]
    title: ClassVar[str]
    status: int
    # One of RFC 9209 §2.3's error types.
    proxy_error: str
    # Whether the connection ends with it: what follows a request that was not understood is no request either.
    closes: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        hint: str = "",
        status: int | None = None,
        proxy_error: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        members: Mapping[str, str] = NO_MEMBERS,
    ) -> None:
        """``members`` are of this problem alone, in its document."""
        super().__init__(detail, hint=hint)
        self.headers, self.members = headers, members
        if status is not None:
            self.status = status
        if proxy_error is not None:
            self.proxy_error = proxy_error

    @property
    def proxy_status(self) -> str:
        """The value of ``Proxy-Status``: who answered, and why (RFC 9209 §2)."""
        return f"slproxy; error={self.proxy_error}"

    def body(self, request_id: str = "") -> bytes:
        """Return the problem document, with ``error`` as well, where SalesLoft's clients look for a message."""
        document = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "hint": self.hint,
            "error": self.detail,
            **self.members,
        }
        if request_id:
            document["request_id"] = request_id
        return json.dumps(document).encode() + b"\n"


class Refused(Problem):
    """The client asked for what the proxy does not do; nothing reached the upstream."""

    proxy_error = "http_request_denied"


class NotFound(Refused):
    """Not an accepted path, and not a page of the proxy's own."""

    type = "not-found"
    title = "Not a path of this proxy"
    status = 404


class BadRequest(Refused):
    """Framing or headers that do not parse or cannot be passed on exactly (400), or that do not come in time (408)."""

    type = "bad-request"
    title = "The request cannot be passed on"
    status = 400
    proxy_error = "http_request_error"
    closes = True


class BadTarget(Refused):
    """A request target that two servers could read in two ways."""

    type = "bad-target"
    title = "The request target is refused"
    status = 400
    proxy_error = "http_request_error"
    closes = True


class TooLarge(Refused):
    """A body (413), target (414) or header block (431) over the limits."""

    type = "too-large"
    title = "The request is over a limit"
    status = 413
    proxy_error = "http_request_error"
    closes = True


class MethodRefused(Refused):
    """TRACE, CONNECT, a write in read-only mode (405), or a method the proxy does not know (501)."""

    type = "method-refused"
    title = "The method is refused"
    status = 405
    closes = True


class HostRefused(Refused):
    """A ``Host``, or an absolute target, that is not this proxy: the stop to DNS rebinding."""

    type = "host-refused"
    title = "This proxy does not answer to that host"
    status = 421
    closes = True


class OriginRefused(Refused):
    """A web page of another origin."""

    type = "origin-refused"
    title = "Web pages of other origins are refused"
    status = 403


class UserRefused(Refused):
    """Another user of this machine, where there is no local key that would say who may."""

    type = "user-refused"
    title = "Other users of this machine are refused"
    status = 403


class KeyRequired(Refused):
    """The local key is missing or wrong."""

    type = "key-required"
    title = "The local key is required"
    status = 401


class Loop(Refused):
    """The request has been through this very process."""

    type = "loop"
    title = "The request came back to this proxy"
    status = 508
    proxy_error = "proxy_loop_detected"


class NotRecorded(Refused):
    """The inspector has not kept what it is asked to send again, or cannot keep what it is asked to."""

    type = "not-recorded"
    title = "The inspector does not have that"
    status = 409


class TokenUnavailable(Problem):
    """No token can be had now; which of the three it is tells who must act."""

    status = 503
    proxy_error = "proxy_configuration_error"


class LoginRequired(TokenUnavailable):
    """There is no token, or the refresh token is dead: a person must log in."""

    type = "login-required"
    title = "A login is needed"
    exit_code = 3


class CredentialsRefused(TokenUnavailable):
    """SalesLoft does not accept the client id, the secret or the scope."""

    type = "credentials-refused"
    title = "SalesLoft refused the credentials"


class TokenEndpointDown(TokenUnavailable):
    """The token endpoint cannot be reached or does not answer as one, and no valid token is left."""

    type = "token-endpoint-down"
    title = "The token endpoint does not answer"
    proxy_error = "destination_unavailable"
    # Seconds until it wants to be asked again, where it said so.
    retry_in: float = 0.0


class UpstreamFault(Problem):
    """The upstream gave no reply that could be passed on.

    ``maybe_sent`` tells whether a byte of the request may have left: where none did, the request was certainly not
    carried out and may be sent again, whatever its method. ``is_lasting`` tells that another attempt would meet the
    same until a person acts, such as a wrong password, which may lock an account if it is tried again and again.
    """

    def __init__(
        self,
        detail: str,
        *,
        maybe_sent: bool,
        hint: str = "",
        proxy_error: str | None = None,
        is_lasting: bool = False,
    ) -> None:
        super().__init__(detail, hint=hint, proxy_error=proxy_error)
        self.maybe_sent = maybe_sent
        self.is_lasting = is_lasting


class UpstreamUnreachable(UpstreamFault):
    """DNS, connect, TLS, or a reset with no reply."""

    type = "upstream-unreachable"
    title = "SalesLoft cannot be reached"
    status = 502
    proxy_error = "destination_unavailable"


class UpstreamTimeout(UpstreamFault):
    """No response headers in time."""

    type = "upstream-timeout"
    title = "SalesLoft did not answer in time"
    status = 504
    proxy_error = "http_response_timeout"


class ProxyFault(Problem):
    """The proxy itself cannot serve the request now."""

    status = 503


class InternalError(ProxyFault):
    """A defect of slproxy: the log has the traceback."""

    type = "internal-error"
    title = "A defect in slproxy"
    status = 500
    proxy_error = "proxy_internal_error"


class OverBudget(ProxyFault):
    """Pacing would hold the request for longer than it may wait."""

    type = "over-budget"
    title = "The budget is spent"
    status = 429
    proxy_error = "http_request_denied"


class Overloaded(ProxyFault):
    """More connections than ``limits.max_connections``."""

    type = "overloaded"
    title = "Too many connections"
    proxy_error = "connection_limit_reached"


class Draining(ProxyFault):
    """The proxy is shutting down."""

    type = "draining"
    title = "The proxy is shutting down"
    proxy_error = "destination_unavailable"


class AuditUnwritable(ProxyFault):
    """The audit log cannot be written, and nothing may be sent without it (``log.audit_required``)."""

    type = "audit-unwritable"
    title = "The audit log cannot be written"
    proxy_error = "proxy_internal_error"
