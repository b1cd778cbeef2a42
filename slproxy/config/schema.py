"""The settings: their names, units, defaults and limits, said once.

Seconds and bytes throughout. ``config`` reads them; everything else only receives its section.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from slproxy.config.secret import Secret

# Where the proxy's own pages are.
OWN_PAGES = "/_slproxy/"
KIB = 1024
MIB = 1024 * KIB
# The longest that asyncio sleeps in one go: MAXIMUM_SELECT_TIMEOUT in asyncio/base_events.py.
DAY = 86400.0
# Zero would make a timeout fire before anything could happen.
MILLISECOND = 0.001

Kind = Literal["text", "integer", "number", "size", "mode", "switch", "list", "path", "secret"]
Grant = Literal["auto", "api_key", "authorization_code", "client_credentials"]
StoreKind = Literal["file", "memory", "keyring", "redis"]
Encryption = Literal["auto", "keyring", "key", "off"]
PaceMode = Literal["pace", "observe", "off"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "pretty", "json"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known of one setting before anybody has set it."""

    section: str
    name: str
    default: object
    kind: Kind
    doc: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    # SalesLoft's users already have this one as SALESLOFT_<NAME>.
    credential: bool = False
    # Shown where there is no default to show.
    example: str = ""

    @property
    def key(self) -> str:
        """The name in full, such as ``listen.port``."""
        return f"{self.section}.{self.name}"

    @property
    def secret(self) -> bool:
        """Whether the value is never shown."""
        return self.kind == "secret"

    @property
    def from_file(self) -> bool:
        """Whether ``<name>_file`` may name a mounted file that holds the value."""
        return self.secret or self.credential

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that set it, SalesLoft's own name first."""
        ours = f"SLPROXY_{self.section}__{self.name}".upper()
        return (f"SALESLOFT_{self.name.upper()}", ours) if self.credential else (ours,)


def _about(kind: Kind, doc: str, **more: object) -> Mapping[str, object]:
    return {"kind": kind, "doc": doc, **more}


@dataclass(frozen=True, kw_only=True)
class ListenSettings:
    """Where clients reach the proxy, and who may."""

    host: str = field(
        default="127.0.0.1", metadata=_about("text", "Address to listen on; one that others can reach needs `key`.")
    )
    port: int = field(
        default=8642,
        metadata=_about("integer", "TCP port to listen on; 0 takes any free one.", minimum=0, maximum=65535),
    )
    uds: str | None = field(
        default=None,
        metadata=_about(
            "path", "Path of a Unix socket to listen on, instead of host and port.", example="/run/slproxy/slproxy.sock"
        ),
    )
    uds_mode: int = field(
        default=0o600,
        metadata=_about("mode", "File mode of that socket, in octal: who may connect.", minimum=0, maximum=0o777),
    )
    key: Secret | None = field(default=None, metadata=_about("secret", "Local key that every client must show."))
    accept_hosts: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            "list", "Names besides loopback ones that a Host header may carry, without port; set `key` as well."
        ),
    )
    allow_origins: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            "list",
            "Origins whose web pages may call the proxy and read its answers, such as https://app.test.",
        ),
    )
    allow_unauthenticated: bool = field(
        default=False,
        metadata=_about(
            "switch", "Listen where others can reach it without `key`: whoever connects acts with your token."
        ),
    )


@dataclass(frozen=True, kw_only=True)
class UpstreamSettings:
    """SalesLoft, and how long to wait for it."""

    api_url: str = field(
        default="https://api.salesloft.com",
        metadata=_about("text", "Origin of the API; http only for a loopback host."),
    )
    accounts_url: str = field(
        default="https://accounts.salesloft.com",
        metadata=_about("text", "Origin of the OAuth server, with the same rule."),
    )
    ca_file: Path | None = field(
        default=None,
        metadata=_about(
            "path",
            "PEM file of an authority to trust besides the system's, for a TLS-inspecting network.",
            example="/etc/ssl/certs/corporate.pem",
        ),
    )
    connect_timeout: float = field(
        default=5.0,
        metadata=_about("number", "Seconds to connect, DNS and TLS included.", minimum=MILLISECOND, maximum=DAY),
    )
    response_timeout: float = field(
        default=60.0,
        metadata=_about(
            "number", "Seconds from the request sent to the response headers.", minimum=MILLISECOND, maximum=DAY
        ),
    )
    idle_timeout: float = field(
        default=60.0,
        metadata=_about("number", "Seconds between two chunks of a response body.", minimum=MILLISECOND, maximum=DAY),
    )
    max_connections: int = field(
        default=100, metadata=_about("integer", "Connections to the upstream at a time.", minimum=1)
    )


@dataclass(frozen=True, kw_only=True)
class AuthSettings:
    """Which credentials become the bearer token."""

    grant: Grant = field(
        default="auto",
        metadata=_about(
            "text",
            "How to get a token; auto takes the API key if set, else a stored login, else client credentials.",
            choices=get_args(Grant),
        ),
    )
    client_id: str | None = field(
        default=None, metadata=_about("text", "Application id of the OAuth application.", credential=True)
    )
    client_secret: Secret | None = field(
        default=None, metadata=_about("secret", "Secret of the OAuth application.", credential=True)
    )
    redirect_uri: str = field(
        default="http://localhost:3000/callback",
        metadata=_about("text", "Redirect URI, exactly as registered with the OAuth application.", credential=True),
    )
    api_key: Secret | None = field(
        default=None, metadata=_about("secret", "API key, used as the bearer token and never renewed.", credential=True)
    )
    scope: str | None = field(
        default=None,
        metadata=_about(
            "text",
            "Scopes to ask for, separated by spaces; without it the application's own.",
            credential=True,
            example="people:read accounts:read",
        ),
    )
    leeway: float = field(
        default=120.0,
        metadata=_about(
            "number",
            "Seconds before its expiry at which a token is renewed; if not set, at most a twentieth of its life.",
            minimum=0,
            maximum=DAY,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """Where the token is kept."""

    kind: StoreKind = field(
        default="file",
        metadata=_about(
            "text",
            "Where a login is kept: a file, memory (forgotten at exit), the system's keyring, or a Redis.",
            choices=get_args(StoreKind),
        ),
    )
    path: Path = field(
        metadata=_about(
            "path",
            "The token file; by default one per profile in the user's state folder.",
            example="/var/lib/slproxy/default.json",
        )
    )
    redis_url: Secret | None = field(
        default=None,
        metadata=_about("secret", "Address of the Redis that replicas share, such as redis://localhost:6379/0."),
    )
    encryption: Encryption = field(
        default="auto",
        metadata=_about(
            "text",
            "What encrypts the token: the keyring's key or store.key; auto takes what there is, else none.",
            choices=get_args(Encryption),
        ),
    )
    key: Secret | None = field(
        default=None,
        metadata=_about("secret", "Key without spaces that encrypts the token in its file or in Redis."),
    )


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    """How hard to try before a failure reaches the client."""

    attempts: int = field(
        default=4, metadata=_about("integer", "Times that a request is sent at most, the first included.", minimum=1)
    )
    max_wait: float = field(
        default=60.0,
        metadata=_about("number", "Seconds of the longest single wait between two attempts.", minimum=0, maximum=DAY),
    )
    deadline: float = field(
        default=120.0,
        metadata=_about(
            "number", "Seconds for all attempts of one request together.", minimum=MILLISECOND, maximum=DAY
        ),
    )
    budget: float = field(
        default=0.2,
        metadata=_about(
            "number", "Retries per request on average, over a floor of 10: keeps an outage from doubling.", minimum=0
        ),
    )


@dataclass(frozen=True, kw_only=True)
class PaceSettings:
    """The team's cost budget per clock minute."""

    mode: PaceMode = field(
        default="pace",
        metadata=_about(
            "text",
            "Hold requests that would overdraw (pace), only count them (observe), or neither (off).",
            choices=get_args(PaceMode),
        ),
    )
    limit: int = field(
        default=600,
        metadata=_about(
            "integer",
            "Cost that may go in a clock minute; if set, a cap on what SalesLoft allows. What costs more goes alone.",
            minimum=1,
        ),
    )
    reserve: float = field(
        default=0.0,
        metadata=_about(
            "number",
            "Share of the budget left to the team's other integrations.",
            minimum=0,
            maximum=0.9,
        ),
    )
    max_wait: float = field(
        default=75.0,
        metadata=_about("number", "Seconds that a request may be held.", minimum=0, maximum=DAY),
    )
    burst: float = field(
        default=1.0,
        metadata=_about(
            "number",
            "Share of a minute's budget that may be spent at once; the rest is spread evenly over the minute.",
            minimum=0.01,
            maximum=1,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """What clients may ask for."""

    read_only: bool = field(default=False, metadata=_about("switch", "Let only GET, HEAD and OPTIONS pass."))
    accept_paths: tuple[str, ...] = field(
        default=("/v2/",),
        metadata=_about("list", "Paths that are forwarded; /v2/people is itself, .json, and what is below."),
    )
    reject_paths: tuple[str, ...] = field(default=(), metadata=_about("list", "Paths that are refused all the same."))


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """What one client may take of this machine."""

    replay_memory: int = field(
        default=MIB,
        metadata=_about(
            "size", "Bytes of a request body kept in memory for a second attempt; more goes to disk.", minimum=0
        ),
    )
    replay_disk: int = field(
        default=64 * MIB,
        metadata=_about("size", "Bytes of a request body kept at all; a larger one is streamed once.", minimum=0),
    )
    max_connections: int = field(default=1000, metadata=_about("integer", "Client connections at a time.", minimum=1))
    header_timeout: float = field(
        default=15.0,
        metadata=_about(
            "number",
            "Seconds for a client to send its request headers.",
            minimum=MILLISECOND,
            maximum=DAY,
        ),
    )
    body_timeout: float = field(
        default=60.0,
        metadata=_about(
            "number",
            "Seconds between two chunks of a request body.",
            minimum=MILLISECOND,
            maximum=DAY,
        ),
    )
    max_target: int = field(default=32 * KIB, metadata=_about("size", "Bytes of a request target.", minimum=1))
    max_headers: int = field(
        default=64 * KIB, metadata=_about("size", "Bytes of a request's headers together.", minimum=1)
    )


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What is said, and how."""

    level: LogLevel = field(
        default="info",
        metadata=_about("text", "The least that is logged.", choices=get_args(LogLevel)),
    )
    format: LogFormat = field(
        default="auto",
        metadata=_about(
            "text", "How a line is written; auto is pretty on a terminal, else json.", choices=get_args(LogFormat)
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a value came from: what ``slproxy config`` prints beside it."""

    layer: Literal["default", "file", "dotenv", "env", "flag"]
    # Such as slproxy.toml:12, .env:3, SLPROXY_LISTEN__PORT, --port.
    place: str = ""
    # The mounted file that the place names, when the value was read from one.
    path: str = ""

    def __str__(self) -> str:
        prefix = "" if self.layer == "dotenv" else self.layer
        return " ".join(part for part in (prefix, self.place, self.path and f"({self.path})") if part)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting, checked, and where each came from."""

    profile: str = "default"
    listen: ListenSettings = ListenSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    auth: AuthSettings = AuthSettings()
    store: StoreSettings
    retry: RetrySettings = RetrySettings()
    pace: PaceSettings = PaceSettings()
    policy: PolicySettings = PolicySettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    # Keyed by the name in full, such as listen.port.
    origins: Mapping[str, Origin] = field(default_factory=lambda: MappingProxyType({}), repr=False, compare=False)

    def is_set(self, key: str) -> bool:
        """Tell whether somebody set ``key``, such as auth.redirect_uri, be it to its default."""
        return key in self.origins and self.origins[key].layer != "default"


SECTIONS: Mapping[str, type] = MappingProxyType(
    {
        "listen": ListenSettings,
        "upstream": UpstreamSettings,
        "auth": AuthSettings,
        "store": StoreSettings,
        "retry": RetrySettings,
        "pace": PaceSettings,
        "policy": PolicySettings,
        "limits": LimitSettings,
        "log": LogSettings,
    }
)

SCHEMA: Mapping[str, Setting] = MappingProxyType(
    {
        f"{section}.{each.name}": Setting(
            section=section,
            name=each.name,
            default=None if each.default is MISSING else each.default,
            **each.metadata,
        )
        for section, shape in SECTIONS.items()
        for each in fields(shape)
    }
)
