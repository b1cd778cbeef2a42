"""Validators: what a single setting must be beyond its type. Each returns the value, normalized."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from slproxy.config import patterns
from slproxy.config.egress import parsed_egress
from slproxy.config.hosts import PORTS, bare_host, is_loopback, parse_origin
from slproxy.config.messages import redacted
from slproxy.config.secret import Secret
from slproxy.errors import ConfigError

_VISIBLE = re.compile(r"[\x21-\x7e]+")


def visible_ascii(value: str) -> str:
    """Return a key that holds only visible ASCII; for any other SalesLoft answers only 401."""
    if not _VISIBLE.fullmatch(value):
        raise ConfigError(
            "looks mangled: it holds a space, a line break, a control character or one outside ASCII",
            hint="copy it again, all of it and nothing else",
        )
    return value


def _string(value: object) -> str:
    assert isinstance(value, str)
    return value


def _strings(value: object) -> tuple[str, ...]:
    assert isinstance(value, tuple)
    return value


def _upstream_origin(value: object) -> str:
    url = _string(value)
    # A browser's address bar adds the slash; it means the same.
    origin = parse_origin(url.removesuffix("/"))
    if origin is None or origin[0] not in PORTS:
        raise ConfigError(
            f"expected an origin, scheme://host or scheme://host:port, got {redacted(url, text=True)}",
            hint="leave out path, query and user name; the path comes from each request",
        )
    scheme, host, port = origin
    if scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"expected https, got {redacted(url, text=True)}: over http anyone on the way reads the token",
            hint="http is for loopback hosts only, such as http://127.0.0.1:8643",
        )
    return f"{scheme}://{host}{port}"


def _redirect_uri(value: object) -> str:
    # It is not repeated: a file may hold it, and then what is wrong with it may be that it is another's secret.
    url = _string(value)
    parts = re.fullmatch(r"([^/?#]+://[^/?#]+)([/?][\x21-\x22\x24-\x7e]*)?", url)
    origin = parse_origin(parts[1]) if parts else None
    if origin is None or origin[0] not in PORTS:
        raise ConfigError(
            "expected an absolute http or https URL without fragment",
            hint="copy it from the OAuth application's settings at SalesLoft",
        )
    if origin[0] == "http" and not is_loopback(origin[1]):
        raise ConfigError(
            "expected https: over http anyone on the way reads the login's code",
            hint="http is for loopback hosts only, such as http://localhost:3000/callback",
        )
    return url


def _listen_host(value: object) -> str:
    host = _string(value)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if host and bare_host(bare) is None:
        raise ConfigError(
            f"expected an address or a host name alone, got {redacted(host, text=True)}",
            hint="e.g. 127.0.0.1, or 0.0.0.0 for all; the port is a setting of its own",
        )
    return bare


def _accept_hosts(value: object) -> tuple[str, ...]:
    hosts = []
    for item in _strings(value):
        host = bare_host(item)
        if host is None:
            raise ConfigError(
                f"expected host names alone, got {redacted(item, text=True)}",
                hint="without scheme, port, path or wildcard, e.g. slproxy.internal; any port is accepted",
            )
        hosts.append(host)
    return tuple(hosts)


def _allow_origins(value: object) -> tuple[str, ...]:
    origins = []
    for item in _strings(value):
        origin = parse_origin(item)
        if origin is None:
            raise ConfigError(
                f"expected origins, scheme://host or scheme://host:port, got {redacted(item, text=True)}",
                hint="name each origin exactly, e.g. https://app.test; '*' and 'null' would admit any web page",
            )
        scheme, host, port = origin
        origins.append(f"{scheme}://{host}{port}")
    return tuple(origins)


def _paths(value: object) -> tuple[str, ...]:
    for item in _strings(value):
        if (wrong := patterns.fault(item)) is not None:
            raise ConfigError(
                f"{redacted(item, text=True)} {wrong}",
                hint="write plain paths: /v2/people covers itself and what is below",
            )
    return _strings(value)


def _accept_paths(value: object) -> tuple[str, ...]:
    if not value:
        raise ConfigError("is empty: no request would pass", hint='remove it for ["/v2/"]')
    return _paths(value)


def _scope(value: object) -> str:
    # RFC 6749 §3.3
    scope = _string(value)
    if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*", scope):
        raise ConfigError(
            "expected scopes separated by single spaces", hint="copy them from the OAuth application's settings"
        )
    return scope


def _redis_url(value: object) -> Secret:
    assert isinstance(value, Secret)
    # The rest of it is redis-py's to judge, which is loaded where it is used.
    if not re.match(r"(rediss?|unix)://", value.reveal(), re.IGNORECASE):
        raise ConfigError("is not a Redis URL", hint="such as redis://localhost:6379/0, rediss://… or unix://…")
    return value


VALIDATORS: Mapping[str, Callable[[object], object]] = MappingProxyType(
    {
        "listen.host": _listen_host,
        "listen.uds": str,
        "listen.accept_hosts": _accept_hosts,
        "listen.allow_origins": _allow_origins,
        "upstream.api_url": _upstream_origin,
        "upstream.accounts_url": _upstream_origin,
        "upstream.proxy": lambda value: parsed_egress(_string(value)),
        "auth.client_id": lambda value: visible_ascii(_string(value)),
        "auth.redirect_uri": _redirect_uri,
        "auth.scope": _scope,
        "metrics.host": _listen_host,
        "store.redis_url": _redis_url,
        "policy.accept_paths": _accept_paths,
        "policy.reject_paths": _paths,
        "client.accept_paths": _accept_paths,
        "client.reject_paths": _paths,
    }
)
