"""The settings: their names, types, units, defaults and bounds, said once.

Seconds and bytes throughout. A setting is a field of a section: its type tells what values it takes, ``Ge`` and ``Le``
bound them, and ``Doc`` says what it is for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, get_type_hints

from slproxy.config.egress import FROM_ENVIRONMENT, Egress
from slproxy.config.origin import DEFAULT, Origin
from slproxy.config.secret import Secret
from slproxy.config.setting import Credential, Doc, Ge, Is, Le, Setting, setting_of

PROFILE_NAME = "a name of 1 to 64 letters, digits, '-' or '_'"
PROFILE = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Also part of the name of a variable, where letters are capitals and two underscores divide.
CLIENT_NAME = "a name of 1 to 32 small letters, digits, '-' or single '_', a letter first"
CLIENT = re.compile(r"(?!.*__)[a-z][a-z0-9_-]{0,31}(?<!_)")
# Where the proxy's own pages are.
OWN_PAGES = "/_slproxy/"
# Orchestrators ask these with whatever Host they like and without a key; they tell nothing but "up" and "ready".
PROBES = (OWN_PAGES + "healthz", OWN_PAGES + "readyz")
KIB = 1024
MIB = 1024 * KIB

Grant = Literal["auto", "api_key", "authorization_code", "client_credentials"]
Encryption = Literal["auto", "keyring", "key", "off"]
Via = Literal["auto", "on", "off"]
Priority = Literal["interactive", "bulk"]

# The longest that asyncio sleeps in one go is a day: MAXIMUM_SELECT_TIMEOUT in asyncio/base_events.py.
Seconds = Annotated[float, Ge(0), Le(86400.0)]
# Zero would make a timeout fire before anything could happen.
Timeout = Annotated[float, Ge(0.001), Le(86400.0)]
Bytes = Annotated[int, Is("size")]


@dataclass(frozen=True, kw_only=True)
class ListenSettings:
    """Where clients reach the proxy, and who may."""

    host: Annotated[str, Doc("Address to listen on; one that other machines can reach needs `key`.")] = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65535), Doc("TCP port to listen on; 0 takes any free one.")] = 8642
    uds: Annotated[str | None, Is("path"), Doc("Path of a Unix socket to listen on, instead of host and port.")] = None
    uds_mode: Annotated[
        int, Ge(0), Le(0o777), Is("mode"), Doc("File mode of the socket, in octal: who may connect.")
    ] = 0o600
    key: Annotated[Secret | None, Doc("Local key that every client must send.")] = None
    accept_hosts: Annotated[
        tuple[str, ...],
        Doc("Host names to accept besides loopback ones, without port; set `key` as well."),
    ] = ()
    allow_origins: Annotated[
        tuple[str, ...],
        Doc("Origins whose web pages may call the proxy and read its replies, such as https://app.test."),
    ] = ()
    allow_unauthenticated: Annotated[
        bool, Doc("Allow an address that others can reach without `key`: whoever connects uses your token.")
    ] = False
    allow_other_users: Annotated[
        bool, Doc("Allow other users of this machine without `key`: whoever connects uses your token.")
    ] = False

    @property
    def keys_to_send(self) -> tuple[Secret, ...]:
        """The keys that slproxy's own commands send to the proxy."""
        return () if self.key is None else (self.key,)


@dataclass(frozen=True, kw_only=True)
class Reach(ListenSettings):
    """Where the proxy listens, as its own commands reach it; ``others`` are keys that they send besides ``key``."""

    others: tuple[Secret, ...] = ()

    @property
    def keys_to_send(self) -> tuple[Secret, ...]:
        """The keys that slproxy's own commands send to the proxy."""
        return (*super().keys_to_send, *self.others)


@dataclass(frozen=True, kw_only=True)
class UpstreamSettings:
    """How to reach SalesLoft, and how long to wait for it."""

    api_url: Annotated[str, Doc("Origin of the API; http is for loopback hosts only.")] = "https://api.salesloft.com"
    accounts_url: Annotated[str, Doc("Origin of the OAuth server; http is for loopback hosts only.")] = (
        "https://accounts.salesloft.com"
    )
    ca_file: Annotated[
        Path | None,
        Is("file"),
        Doc("PEM file of a certificate authority to trust besides the system's, for a TLS-inspecting network."),
    ] = None
    connect_timeout: Annotated[Timeout, Doc("Seconds to connect, DNS and TLS included.")] = 5.0
    response_timeout: Annotated[Timeout, Doc("Seconds from sending the request to the response headers.")] = 60.0
    idle_timeout: Annotated[Timeout, Doc("Seconds to wait for the next chunk of a response body.")] = 60.0
    max_connections: Annotated[int, Ge(1), Doc("Connections to SalesLoft at a time.")] = 100
    proxy: Annotated[
        Egress,
        Is("proxy"),
        Doc("URL of an egress proxy, http or https; env: HTTPS_PROXY and NO_PROXY as curl reads them; or off."),
    ] = FROM_ENVIRONMENT
    warm: Annotated[
        Seconds, Doc("Seconds after the last use for which a connection to the API is kept ready; 0 is off.")
    ] = 900.0
    trace_context: Annotated[
        bool, Doc("Send SalesLoft the trace context of each attempt, where there are traces; else only the client's.")
    ] = False
    via: Annotated[Via, Doc("When requests name the proxy in Via; auto: unless api_url is SalesLoft's own.")] = "auto"


@dataclass(frozen=True, kw_only=True)
class AuthSettings:
    """Which credentials become the bearer token."""

    grant: Annotated[
        Grant, Doc("How to get a token; auto takes the API key if set, else a stored login, else client credentials.")
    ] = "auto"
    client_id: Annotated[str | None, Credential(), Doc("Client id of the OAuth application.")] = None
    client_secret: Annotated[Secret | None, Credential(), Doc("Secret of the OAuth application.")] = None
    redirect_uri: Annotated[
        str, Credential(), Doc("Redirect URI, exactly as registered with the OAuth application.")
    ] = "http://localhost:3000/callback"
    api_key: Annotated[Secret | None, Credential(), Doc("API key, used as the bearer token and never renewed.")] = None
    scope: Annotated[
        str | None, Credential(), Doc("Scopes to request, separated by spaces; default: the application's own.")
    ] = None
    leeway: Annotated[
        Seconds,
        Doc("Seconds before expiry at which a token is renewed; if not set, at most a twentieth of its lifetime."),
    ] = 120.0


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """Where the token is stored."""

    kind: Annotated[
        Literal["file", "memory", "keyring", "redis"],
        Doc("Where a login is stored: a file, memory (lost at exit), the system's keyring, or Redis."),
    ] = "file"
    path: Annotated[Path, Doc("The token file; default: one per profile in the user's state folder.")]
    redis_url: Annotated[
        Secret | None, Doc("URL of the Redis that replicas share, such as redis://localhost:6379/0.")
    ] = None
    encryption: Annotated[
        Encryption,
        Doc("What encrypts the token: the keyring's key or store.key; auto takes what there is, else none."),
    ] = "auto"
    key: Annotated[Secret | None, Doc("Key without spaces that encrypts the token in its file or in Redis.")] = None


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    """How hard to try before a failure reaches the client."""

    attempts: Annotated[int, Ge(1), Doc("Maximum times that a request is sent, the first included.")] = 4
    max_wait: Annotated[Seconds, Doc("Longest wait between two attempts, in seconds.")] = 60.0
    deadline: Annotated[Timeout, Doc("Seconds for all attempts of one request together.")] = 120.0
    budget: Annotated[
        float,
        Ge(0),
        Doc("Retries per request on average, over a floor of 10; keeps retries from making an outage worse."),
    ] = 0.2


@dataclass(frozen=True, kw_only=True)
class PaceSettings:
    """The team's cost budget per clock minute."""

    mode: Annotated[
        Literal["pace", "observe", "off"],
        Doc("Hold requests that would exceed the budget (pace), only count them (observe), or neither (off)."),
    ] = "pace"
    limit: Annotated[
        int,
        Ge(1),
        Doc(
            "Cost to spend in a clock minute; if set, a cap on what SalesLoft allows. A costlier request is sent alone."
        ),
    ] = 600
    reserve: Annotated[float, Ge(0), Le(0.9), Doc("Share of the budget left to the team's other integrations.")] = 0.0
    max_wait: Annotated[Seconds, Doc("Seconds that a request may be held.")] = 75.0
    burst: Annotated[
        float,
        Ge(0.01),
        Le(1),
        Doc("Share of a minute's budget that may be spent at once; the rest is spread evenly over the minute."),
    ] = 1.0


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """What clients may ask for."""

    read_only: Annotated[bool, Doc("Allow only GET, HEAD and OPTIONS.")] = False
    accept_paths: Annotated[
        tuple[str, ...], Doc("Paths to forward; /v2/people matches itself, /v2/people.json and everything below.")
    ] = ("/v2/",)
    reject_paths: Annotated[tuple[str, ...], Doc("Paths to reject, even below those of accept_paths.")] = ()


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """What one client may ask for, by the key that it shows: no more than ``policy`` lets through."""

    key: Annotated[Secret, Doc("Key by which the client is known; `slproxy key` prints one.")]
    read_only: Annotated[bool, Doc("Allow it only GET, HEAD and OPTIONS.")] = False
    accept_paths: Annotated[tuple[str, ...], Doc("Paths to forward for it, as policy.accept_paths.")] = ("/v2/",)
    reject_paths: Annotated[tuple[str, ...], Doc("Paths to reject for it, even below those of accept_paths.")] = ()
    budget: Annotated[int | None, Ge(1), Doc("Cost that it may spend in a clock minute; default: the team's.")] = None
    priority: Annotated[
        Priority, Doc("Whether it goes first (interactive), or gives way (bulk), whatever it asks for.")
    ] = "interactive"


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """What one client may take of this machine."""

    replay_memory: Annotated[
        Bytes, Ge(0), Doc("Bytes of a request body kept in memory for a retry; more goes to disk.")
    ] = MIB
    replay_disk: Annotated[Bytes, Ge(0), Doc("Bytes of a request body kept at all; a larger one is streamed once.")] = (
        64 * MIB
    )
    replay_memory_total: Annotated[
        Bytes, Ge(0), Doc("Bytes of all request bodies kept in memory together; past it they go to disk at once.")
    ] = 64 * MIB
    max_connections: Annotated[
        int, Ge(1), Doc("Client connections at a time; fewer where the process may not open as many files.")
    ] = 1000
    header_timeout: Annotated[Timeout, Doc("Seconds for a client to send its request headers.")] = 15.0
    body_timeout: Annotated[Timeout, Doc("Seconds to wait for the next chunk of a request body.")] = 60.0
    max_target: Annotated[Bytes, Ge(1), Doc("Bytes of a request target.")] = 32 * KIB
    max_headers: Annotated[Bytes, Ge(1), Doc("Bytes of a request's headers together.")] = 64 * KIB


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What is logged, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Doc("Lowest level that is logged.")] = "info"
    format: Annotated[
        Literal["auto", "pretty", "json"], Doc("Log format; auto is pretty on a terminal, else json.")
    ] = "auto"
    audit: Annotated[
        Path | None,
        Doc("File that gets a JSON line for every request that is answered and every event of the token."),
    ] = None
    audit_required: Annotated[
        bool, Doc("Send nothing to SalesLoft while the audit file cannot be written, instead of going on without.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class MetricsSettings:
    """A listener of its own, open to whoever reaches it: it serves metrics and the probes, and nothing else."""

    host: Annotated[str, Doc("Address at which `port` is open, without a key, to whoever scrapes and probes.")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int | None, Ge(0), Le(65535), Doc("TCP port for metrics, healthz and readyz; 0 takes any free one.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class InspectSettings:
    """What the inspector at /_slproxy/ keeps of requests; all of it in memory."""

    enabled: Annotated[bool, Doc("Keep the last requests for the inspector at /_slproxy/.")] = True
    bodies: Annotated[
        Literal["off", "on"],
        Doc("Whether bodies are kept too, up to 64 KiB each; the page turns it on for a while."),
    ] = "off"
    entries: Annotated[int, Ge(1), Le(100_000), Doc("Requests to keep at most.")] = 1000
    memory: Annotated[Bytes, Ge(0), Doc("Bytes that all of it may take.")] = 16 * MIB


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
    metrics: MetricsSettings = MetricsSettings()
    inspect: InspectSettings = InspectSettings()
    # By name.
    clients: Mapping[str, ClientSettings] = field(default_factory=lambda: MappingProxyType({}))
    # Keyed by the name in full, such as listen.port.
    origins: Mapping[str, Origin] = field(default_factory=lambda: MappingProxyType({}), repr=False, compare=False)
    # What a person should know, though it stops nothing.
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def is_set(self, key: str) -> bool:
        """Tell whether ``key``, such as auth.redirect_uri, was set, even to its default."""
        return self.origin(key).layer != "default"

    def origin(self, key: str) -> Origin:
        """Return where the value of ``key`` came from."""
        return self.origins.get(key, DEFAULT)

    @property
    def keys(self) -> Mapping[str, Secret]:
        """The keys that clients may show, by the names of their settings."""
        keys = {f"{CLIENT_SECTION}.{name}.key": client.key for name, client in self.clients.items()}
        return keys if self.listen.key is None else {"listen.key": self.listen.key, **keys}

    @property
    def reach(self) -> ListenSettings:
        """Where the proxy listens, with what opens all of it: ``listen.key``, or else the keys of all clients."""
        if self.listen.key is not None or not self.clients:
            return self.listen
        key, *others = self.keys.values()
        return Reach(**(vars(self.listen) | {"key": key, "others": tuple(others)}))

    @property
    def schema(self) -> Mapping[str, Setting]:
        """The settings that there are: SCHEMA and those of each client."""
        return schema_with(self.clients)

    def value(self, setting: Setting) -> object:
        """Return the value of a setting."""
        section = self.clients[setting.table] if setting.table else getattr(self, setting.section)
        value: object = getattr(section, setting.name)
        return value


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
        "metrics": MetricsSettings,
        "inspect": InspectSettings,
    }
)

SCHEMA: Mapping[str, Setting] = MappingProxyType(
    {
        f"{section}.{each.name}": setting_of(section, each, hints[each.name])
        for section, shape in SECTIONS.items()
        for hints in [get_type_hints(shape, include_extras=True)]
        for each in fields(shape)
    }
)

CLIENT_SECTION = "client"
_CLIENT_HINTS = get_type_hints(ClientSettings, include_extras=True)
_CLIENT_FIELDS = tuple(setting_of(CLIENT_SECTION, each, _CLIENT_HINTS[each.name]) for each in fields(ClientSettings))


def schema_with(clients: Iterable[str]) -> Mapping[str, Setting]:
    """Return SCHEMA, and the settings of these clients."""
    return {**SCHEMA, **{each.key: each for name in clients for each in client_schema(name).values()}}


def client_schema(name: str) -> Mapping[str, Setting]:
    """Return the settings of the client of this name, by their own names."""
    return {each.name: replace(each, table=name) for each in _CLIENT_FIELDS}
