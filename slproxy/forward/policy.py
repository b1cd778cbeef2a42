"""Policy: which requests are let in, decided before a byte of a body is read or a token is touched.

1. Nothing is repaired. A target either goes upstream byte for byte or does not go at all.
2. Whatever two servers could read in two ways is refused: dot segments in any spelling, a second slash at the front,
   backslashes, control characters, broken escapes, fragments.
3. The name in ``Host`` decides, whatever the socket: it is all that stops a web page whose name was rebound to
   127.0.0.1 (docs/hazards.md, trap 9: DNS rebinding carries no ``Sec-Fetch-*`` and, on GET, no ``Origin``).
4. Secrets are compared in constant time.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from slproxy.config import OWN_PAGES, PROBES, Secret, Settings, covers
from slproxy.errors import (
    BadRequest,
    BadTarget,
    HostRefused,
    KeyRequired,
    Loop,
    MethodRefused,
    NotFound,
    Refused,
    TooLarge,
    UserRefused,
)
from slproxy.forward import cors
from slproxy.forward.browser import check_origin
from slproxy.forward.headers import has_passed
from slproxy.forward.host import is_own_host
from slproxy.forward.messages import Inbound
from slproxy.forward.rules import ALL_PATHS, METHODS, Client, Rules, clients_of, tell_client
from slproxy.forward.target import exact_path
from slproxy.http import ByName, by_name, size
from slproxy.observe import Exchange
from slproxy.sockets import GONE

# Known to HTTP and never forwarded: CONNECT opens a tunnel, TRACE echoes the injected bearer (RFC 9110 §9.3.8).
_REFUSED_METHODS = ("CONNECT", "TRACE")

# What the proxy's own pages take.
OWN_METHODS = ("GET", "HEAD")
# How many of the keys that a request shows are looked at: each is compared with that of each client.
MOST_KEYS = 100
# What only browsers send, and what tells which page asks.
_OF_BROWSERS = frozenset({b"origin", b"sec-fetch-site", b"sec-fetch-dest", b"service-worker"})
_VERSION = re.compile(r".*?/v[0-9]+(?=/|$)", re.IGNORECASE)
_LIKE_A_VERSION = re.compile(r"/v[0-9]", re.IGNORECASE)


class Route(enum.Enum):
    """Who answers a request that was let in."""

    UPSTREAM = enum.auto()
    OWN_PAGE = enum.auto()
    # One of the probes, for somebody who would get no other page.
    PROBE = enum.auto()
    # A browser asks whether a page of an allowed origin may send a request.
    PREFLIGHT = enum.auto()


# Where most go; to look a member up in its enum takes ten times as long (Python 3.11).
UPSTREAM = Route.UPSTREAM


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What this proxy lets in; ``pseudonym`` is its name in ``Via``, the two limits are in bytes."""

    accept_paths: tuple[str, ...] = ALL_PATHS
    reject_paths: tuple[str, ...] = ()
    accept_hosts: frozenset[str] = frozenset()
    allow_origins: frozenset[str] = frozenset()
    read_only: bool = False
    key: Secret | None = None
    allow_other_users: bool = False
    pseudonym: str
    max_target: int = 32 * 1024
    max_headers: int = 64 * 1024
    # Those that have keys of their own.
    clients: tuple[Client, ...] = ()
    # What holds for everybody.
    rules: Rules = field(init=False, compare=False)

    def __post_init__(self) -> None:
        rules = Rules(read_only=self.read_only, accept_paths=self.accept_paths, reject_paths=self.reject_paths)
        object.__setattr__(self, "rules", rules)

    @property
    def needs_key(self) -> bool:
        """Whether a request has to show a key."""
        return self.key is not None or bool(self.clients)


def policy_of(settings: Settings, *, pseudonym: str) -> Policy:
    """Return the policy that the settings ask for."""
    return Policy(
        accept_paths=settings.policy.accept_paths,
        reject_paths=settings.policy.reject_paths,
        accept_hosts=frozenset(name.lower() for name in settings.listen.accept_hosts),
        allow_origins=frozenset(settings.listen.allow_origins),
        read_only=settings.policy.read_only,
        key=settings.listen.key,
        clients=clients_of(settings),
        allow_other_users=settings.listen.allow_other_users,
        pseudonym=pseudonym,
        max_target=settings.limits.max_target,
        max_headers=settings.limits.max_headers,
    )


def check(policy: Policy, inbound: Inbound, headers: ByName | None) -> tuple[Route, str]:
    """Return who answers, and the target in origin form, byte for byte as the client spelt it.

    ``headers`` are those of the request, by name; ``None`` where the same bytes were let in before, on their way to the
    upstream and of this user. Then what remains are the rules about the request line.

    Raises:
        Refused: one of its subclasses, the first rule of docs/contract.md, Check, that the request breaks.
    """
    try:
        return _checked(policy, inbound, headers)
    except Refused as refused:
        # Who shows wrong keys shall not have all of them compared once more.
        if "rule" in refused.members or isinstance(refused, MethodRefused):
            _for_client(refused, policy, client_of(policy, by_name(inbound.headers)), inbound.target)
        raise


def _checked(policy: Policy, inbound: Inbound, headers: ByName | None) -> tuple[Route, str]:
    method, target = inbound.method, inbound.target
    if headers is not None and size(inbound.headers) > policy.max_headers:
        raise TooLarge(f"The header block is over {policy.max_headers} bytes.", hint="Send less.", status=431)
    # In bytes; a character that is not ASCII takes up to four.
    if len(target) > policy.max_target or (
        not target.isascii() and len(target.encode("utf-8", "surrogateescape")) > policy.max_target
    ):
        raise TooLarge(
            f"The request target is longer than {policy.max_target} bytes.", hint="Send less in the query.", status=414
        )
    if method not in METHODS:
        raise _method_refused(method)
    origin_form = target if target.startswith("/") else _origin_form(policy, target)
    path = exact_path(origin_form)
    if path in PROBES and method in OWN_METHODS:
        is_known = headers is None or _knows(policy, inbound, headers)
        return Route.OWN_PAGE if is_known else Route.PROBE, origin_form
    route = _route(policy, path)
    if headers is not None:
        _check_sender(policy, inbound, headers)
        if cors.is_preflight(method, headers) and cors.allowed(headers, policy.allow_origins):
            return Route.PREFLIGHT, origin_form
        _check_headers(policy, headers)
    if route is UPSTREAM and (policy.rules.read_only or policy.rules.narrows_paths):
        policy.rules.check_method(method, headers or {}, query=origin_form.partition("?")[2])
    return route, origin_form


def check_of(exchange: Exchange, policy: Policy, inbound: Inbound, headers: ByName | None) -> tuple[Route, str]:
    """Return what ``check`` does; whoever observes a refusal is told whose key was shown."""
    try:
        return check(policy, inbound, headers)
    except Refused:
        tell_client(exchange, client_of(policy, by_name(inbound.headers)))
        raise


def check_all(policy: Policy, inbound: Inbound) -> None:
    """Check that a request goes to the upstream, by everybody's rules and those of its client. Raises Refused."""
    route, target = check(policy, inbound, named := by_name(inbound.headers))
    if route is not UPSTREAM:
        raise NotFound("That is not passed on.", hint="The proxy answers it itself.")
    if (client := client_of(policy, named)) is not None:
        check_client(policy, client, inbound.method, target, named)


def client_of(policy: Policy, headers: ByName) -> Client | None:
    """Return whose key a request has shown that was let in, ``None`` where it was ``listen.key`` alone, or none."""
    return next(iter(_clients_in(policy, headers)), None)


def viewer_of(policy: Policy, headers: ByName) -> Client | None:
    """Return as which client a request sees the proxy's own pages, ``None`` where it sees all.

    It does with ``listen.key`` alone; and, where that is not set, with the keys of all clients, if there are several.
    """
    known = _clients_in(policy, headers)
    is_owner = policy.key is None and len(known) == len(policy.clients) > 1
    return None if is_owner else next(iter(known), None)


def _clients_in(policy: Policy, headers: ByName) -> list[Client]:
    shown = _shown_keys(headers) if policy.clients else []
    return [each for each in policy.clients if _matches(each.key, shown)]


def check_client(policy: Policy, client: Client, method: str, target: str, headers: ByName) -> None:
    """Hold a request that was let in against the rules of its client, by its key.

    ``target`` is in origin form. Raises Refused.
    """
    path, _, query = target.partition("?")
    try:
        client.rules.check_path(path)
        client.rules.check_method(method, headers, query=query)
    except Refused as refused:
        _for_client(refused, policy, client, target)
        raise


def _for_client(refused: Refused, policy: Policy, client: Client | None, target: str) -> None:
    """Name the client whose key was shown in a refusal by a rule; ``Allow`` lists what it may do at the target."""
    if client is not None and "rule" in refused.members:
        refused.members = {"client": client.name, **refused.members}
    if isinstance(refused, MethodRefused):
        theirs = METHODS if client is None else client.rules.methods
        allowed = OWN_METHODS if target.startswith(OWN_PAGES) else [m for m in policy.rules.methods if m in theirs]
        refused.headers = (("Allow", ", ".join(allowed)),)


def _check_sender(policy: Policy, inbound: Inbound, headers: ByName) -> None:
    """Check where a request comes from, and by which name it calls the proxy."""
    host = _check_host(policy, headers)
    # Only browsers send these, and a client that is none could send anything.
    if not _OF_BROWSERS.isdisjoint(headers):
        check_origin(headers, host, policy.allow_origins)
    if inbound.other_user is not None and not policy.needs_key and not policy.allow_other_users:
        raise _user_refused(inbound.other_user)


def _check_headers(policy: Policy, headers: ByName) -> None:
    """Check what a request that is no preflight has to show, and what it must not."""
    if b"via" in headers and has_passed(headers, policy.pseudonym):
        raise Loop(
            "The request has already been through this proxy: its Via header names it.",
            hint="Point upstream.api_url at SalesLoft, not at a proxy that leads back here.",
        )
    if policy.needs_key:
        _check_key(policy, headers)


def _knows(policy: Policy, inbound: Inbound, headers: ByName) -> bool:
    try:
        _check_sender(policy, inbound, headers)
    except Refused:
        return False
    return True


def _origin_form(policy: Policy, target: str) -> str:
    """Return an absolute target in origin form; where it names this proxy it loses its authority, nothing else."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise BadTarget(
            "The request target is neither a path nor an absolute URL.",
            hint="Ask for a path such as /v2/me.json.",
        )
    end = min((index for index in (rest.find("/"), rest.find("?"), rest.find("#")) if index >= 0), default=len(rest))
    authority = rest[:end]
    if scheme.lower() == "https" or not is_own_host(policy.accept_hosts, authority):
        raise HostRefused(
            "The request target is an absolute URL of another host.",
            hint="This is a reverse proxy: set it as the base URL, not as HTTP_PROXY.",
        )
    return rest[end:] or "/"


def _route(policy: Policy, path: str) -> Route:
    if path.startswith(OWN_PAGES):
        return Route.OWN_PAGE
    if not (path.startswith(policy.rules.folders) or policy.rules.accepts.match(path)):
        raise _not_accepted(policy, path)
    if policy.rules.narrows_paths:
        policy.rules.check_path(path)
    return UPSTREAM


def _not_accepted(policy: Policy, path: str) -> NotFound:
    detail, hint = "This proxy does not forward that path.", _nearest(policy, path)
    if policy.accept_paths == ALL_PATHS:
        return NotFound(detail, hint=hint)  # no rule that anybody has set: the path is wrong
    ask = "Ask whoever runs this proxy, if this path should be forwarded."
    return NotFound(detail, hint=f"{hint} {ask}", members={"rule": "policy.accept_paths"})


def _nearest(policy: Policy, path: str) -> str:
    """Name the nearest thing that exists to a path that is not accepted."""
    if OWN_PAGES + path[1:] in PROBES:
        return f"Did you mean {OWN_PAGES}{path[1:]}?"
    if path.lower().startswith("/_slproxy"):
        return f"The proxy's own state is at {OWN_PAGES}status.json."
    only = f"Only {', '.join(policy.accept_paths)} is forwarded."
    if covers("/oauth", path):
        return f"Delete what fetches a token: the proxy adds its own to each request, and forwards no OAuth. {only}"
    version = _VERSION.match(path)
    rest = path[version.end() :] if version is not None else path
    if rest in ("", "/"):
        example = "/v2/me.json" if _is_forwarded(policy, "/v2/me.json") else policy.accept_paths[0]
        return f"Try {example}; the proxy's own state is at {OWN_PAGES}status.json."
    if "%" in rest or _LIKE_A_VERSION.match(rest) or not _is_forwarded(policy, "/v2" + rest):
        return only
    return f"Did you mean /v2{rest}? {only}"


def _is_forwarded(policy: Policy, path: str) -> bool:
    return policy.rules.accepts.match(path) is not None and not policy.rules.closed_by(path)


def _method_refused(method: str) -> MethodRefused:
    if method in _REFUSED_METHODS:
        return MethodRefused(
            f"{method} is never passed on.",
            hint="Use one of the methods in Allow. This is a reverse proxy: set it as the base URL, not as HTTP_PROXY.",
        )
    return MethodRefused("The method is not one this proxy knows.", hint="Use one of the methods in Allow.", status=501)


def _check_host(policy: Policy, headers: ByName) -> str:
    hosts = headers.get(b"host", ())
    if len(hosts) != 1:  # RFC 9112 §3.2
        raise BadRequest("A request needs exactly one Host header.", hint="Send one Host header.")
    host = hosts[0].decode("latin-1")
    if not is_own_host(policy.accept_hosts, host):
        raise HostRefused(
            "The Host header does not name this proxy.",
            hint="Use localhost or 127.0.0.1, or add the name to listen.accept_hosts.",
        )
    return host


def _user_refused(uid: int) -> UserRefused:
    return UserRefused(
        "The client closed its connection before the system could tell whose it was."
        if uid == GONE
        else f"The client runs as another user of this machine (uid {uid}).",
        hint="Whoever runs the proxy can set listen.key, and tell it to who may use their token, or set"
        " listen.allow_other_users = true.",
    )


def _shown_keys(headers: ByName) -> list[bytes]:
    in_authorization = (_key_in_authorization(value) for value in headers.get(b"authorization", ()))
    shown = chain(headers.get(b"x-slproxy-key", ()), (each for each in in_authorization if each is not None))
    return list(islice(shown, MOST_KEYS))


def _matches(key: Secret, shown: Sequence[bytes]) -> bool:
    # Every candidate is compared, so that the time tells nothing about which one was right.
    return sum(key == Secret(candidate.decode("utf-8", "replace")) for candidate in shown) > 0


def _check_key(policy: Policy, headers: ByName) -> None:
    shown = _shown_keys(headers)
    keys = [each.key for each in policy.clients] + ([] if policy.key is None else [policy.key])
    if not sum(_matches(key, shown) for key in keys):
        raise KeyRequired(
            "The local key is missing." if not shown else "The local key is wrong.",
            hint="Send it as X-Slproxy-Key, as a Bearer token, or as the password of Basic authentication.",
            headers=(("WWW-Authenticate", 'Basic realm="slproxy", charset="UTF-8"'), ("WWW-Authenticate", "Bearer")),
        )


def _key_in_authorization(value: bytes) -> bytes | None:
    scheme, _, credentials = value.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return None
