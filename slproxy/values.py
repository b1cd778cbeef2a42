"""What the value of a setting means: its type, its range, and the rules of single settings.

Decides about one value at a time and knows nothing of where it was found; the clashes between two are ``config``'s.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from types import MappingProxyType

from slproxy import paths
from slproxy.errors import ConfigError
from slproxy.settings import KIB, MIB, Secret, Setting

REMEDY = "correct it, or leave it out"

_UNITS = MappingProxyType({"KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB})
_SWITCHES = MappingProxyType(
    {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
_SIZE = re.compile(r"([0-9]{1,15}) ?(KiB|MiB|GiB)")
_MODE = re.compile(r"(?:0o)?([0-7]{3,4})")
_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\.?"
_NAME = re.compile(_HOST)
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://({_HOST})(?::([0-9]{{1,5}}))?", re.IGNORECASE)
_PORTS = MappingProxyType({"http": 80, "https": 443})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


def understand(setting: Setting, value: object, *, text: bool, base: Path) -> object:
    """Return ``value`` as the setting's own type.

    ``text`` says that it comes from where all types are spelt in letters, such as the environment; a relative path
    starts from ``base``. Raises ConfigError, worded to follow the name of the setting, and without any secret.
    """
    try:
        typed = _within(setting, _typed(setting, value, text=text))
    except (ValueError, OverflowError):
        got = kind_of(value) if setting.from_file else shown(value, text=text)
        raise ConfigError(f"expected {expected(setting)}, got {got}", hint=REMEDY) from None
    if isinstance(typed, str):
        _check_text(setting, typed)
        if setting.secret:
            return Secret(_unmangled(typed))
        if setting.kind == "path":
            typed = _path(typed, base)
    rule = _RULES.get(setting.key)
    return rule(typed) if rule else typed


def expected(setting: Setting) -> str:
    """Say what values a setting takes, for a message."""
    if setting.choices:
        return "one of " + ", ".join(setting.choices)
    low, high = setting.minimum, setting.maximum
    limits = "" if low is None else f" from {low:g} to {high:g}" if high is not None else f" of at least {low:g}"
    match setting.kind:
        case "integer":
            return f"an integer{limits}, e.g. {setting.default}"
        case "number":
            return f"a number{limits}, e.g. {setting.default:g}"
        case "size":
            return f'a size{limits}, in bytes or with a unit as in "1 MiB" (KiB, MiB, GiB)'
        case "mode":
            return 'a file mode in octal, e.g. "0600"'
        case "switch":
            return "true or false"
        case "list":
            return 'a list of strings, e.g. ["a", "b"]'
        case _:
            return "a string"


def kind_of(value: object) -> str:
    """Name the TOML type of a value, without the value."""
    kinds = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")


def shown(value: object, *, text: bool = False) -> str:
    """Show a value in a message: shortened, and not at all where a URL might carry a password."""
    match value:
        case str() if "@" in value:
            return "text with an '@' (not shown: it may hold a password)"
        case str():
            short = repr(value if len(value) <= 60 else value[:60] + "…")
            return short if text else f"the string {short}"
        case bool():
            return json.dumps(value)
        case float():
            return f"{value:g}"
        case int():
            return str(value) if abs(value) < 1e15 else "a huge number"
        case _:
            return kind_of(value)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``: localhost and names below it (RFC 6761 §6.3), 127.0.0.0/8, ::1."""
    name = host.strip("[]").removesuffix(".").lower()
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _within(setting: Setting, value: object) -> object:
    low, high = setting.minimum, setting.maximum
    if isinstance(value, int | float) and not (
        math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
    ):
        raise ValueError
    return value


def _typed(setting: Setting, value: object, *, text: bool) -> object:
    match setting.kind:
        case "switch":
            return _switch(value, text=text)
        case "integer":
            return _integer(value, text=text)
        case "number":
            return _number(value, text=text)
        case "size":
            return _size(value, text=text)
        case "mode":
            return _mode(value)
        case "list":
            return _list(value, text=text)
        case _:
            if not isinstance(value, str) or (setting.choices and value not in setting.choices):
                raise ValueError
            return value


def _switch(value: object, *, text: bool) -> bool:
    if text and isinstance(value, str) and value.lower() in _SWITCHES:
        return _SWITCHES[value.lower()]
    if isinstance(value, bool):
        return value
    raise ValueError


def _integer(value: object, *, text: bool) -> int:
    if text and isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError


def _number(value: object, *, text: bool) -> float:
    if text and isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError


def _size(value: object, *, text: bool) -> int:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return int(match[1]) * _UNITS[match[2]]
    return _integer(value, text=text)


def _mode(value: object) -> int:
    if isinstance(value, str) and (match := _MODE.fullmatch(value)):
        return int(match[1], 8)
    return _integer(value, text=False)


def _list(value: object, *, text: bool) -> tuple[str, ...]:
    if text and isinstance(value, str):
        value = (
            json.loads(value)
            if value.startswith("[")
            else [part for item in value.split(",") if (part := item.strip())]
        )
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError
    return tuple(value)


def _check_text(setting: Setting, value: str) -> None:
    # An empty host is every address; `config` asks for a key then.
    if not value and setting.key != "listen.host":
        raise ConfigError("is empty", hint="give it a value, or leave it out")
    if not setting.secret and _CONTROL.search(value):
        raise ConfigError(
            "looks mangled: it holds a control character", hint="type it again, or copy it without line breaks"
        )


def _unmangled(value: str) -> str:
    """A key with a line break or a typographic dash in it is refused by SalesLoft with a puzzling 401; say it here."""
    if not _VISIBLE.fullmatch(value):
        raise ConfigError(
            "looks mangled: it holds a space, a line break, a control character or one outside ASCII",
            hint="copy it again, all of it and nothing else",
        )
    return value


def _path(value: str, base: Path) -> Path:
    try:
        return base / Path(value).expanduser()
    except RuntimeError:
        raise ConfigError("starts with '~', and that home folder is not known", hint="write the path in full") from None


def _string(value: object) -> str:
    assert isinstance(value, str)
    return value


def _strings(value: object) -> tuple[str, ...]:
    assert isinstance(value, tuple)
    return value


def _origin(value: str) -> tuple[str, str, str] | None:
    """Return scheme, host and ``:port`` as browsers spell an origin (RFC 6454 §6.1), None where it is none."""
    match = _ORIGIN.fullmatch(value)
    if not match:
        return None
    scheme, host = match[1].lower(), match[2].lower()
    try:
        name = f"[{IPv6Address(host[1:-1])}]" if host.startswith("[") else host
    except ValueError:
        return None
    if match[3] is None:
        return scheme, name, ""
    port = int(match[3])
    if not 1 <= port <= 65535:
        return None
    return scheme, name, "" if _PORTS.get(scheme) == port else f":{port}"


def _upstream_origin(value: object) -> str:
    url = _string(value)
    # A browser's address bar puts the slash there; it means the same.
    origin = _origin(url.removesuffix("/"))
    if origin is None or origin[0] not in _PORTS:
        raise ConfigError(
            f"expected an origin, scheme://host or scheme://host:port, got {shown(url, text=True)}",
            hint="leave out path, query and user name; the path comes from each request",
        )
    scheme, host, port = origin
    if scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"expected https, got {shown(url, text=True)}: over http anyone on the way reads the token",
            hint="http is for loopback hosts only, such as http://127.0.0.1:8643",
        )
    return f"{scheme}://{host}{port}"


def _redirect_uri(value: object) -> str:
    url = _string(value)
    parts = re.fullmatch(r"([^/?#]+://[^/?#]+)([/?][\x21-\x22\x24-\x7e]*)?", url)
    origin = _origin(parts[1]) if parts else None
    if origin is None or origin[0] not in _PORTS:
        raise ConfigError(
            f"expected an absolute http or https URL without fragment, got {shown(url, text=True)}",
            hint="copy it from the OAuth application's settings at SalesLoft",
        )
    if origin[0] == "http" and not is_loopback(origin[1]):
        raise ConfigError(
            f"expected https, got {shown(url, text=True)}: over http anyone on the way reads the login's code",
            hint="http is for loopback hosts only, such as http://localhost:3000/callback",
        )
    return url


def _listen_host(value: object) -> str:
    host = _string(value)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if host and _bare_host(bare) is None:
        raise ConfigError(
            f"expected an address or a host name alone, got {shown(host, text=True)}",
            hint="e.g. 127.0.0.1, or 0.0.0.0 for all; the port is listen.port",
        )
    return bare


def _bare_host(value: str) -> str | None:
    """Return the host as a Host header spells it, in lower case; None if it is more or less than a host."""
    try:
        address = ip_address(value.removeprefix("[").removesuffix("]"))
        return f"[{address}]" if address.version == 6 else str(address)
    except ValueError:
        return value.lower().removesuffix(".") if _NAME.fullmatch(value) and value[0] != "[" else None


def _accept_hosts(value: object) -> tuple[str, ...]:
    hosts = []
    for item in _strings(value):
        host = _bare_host(item)
        if host is None:
            raise ConfigError(
                f"expected host names alone, got {shown(item, text=True)}",
                hint="without scheme, port, path or wildcard, e.g. slproxy.internal; any port is accepted",
            )
        hosts.append(host)
    return tuple(hosts)


def _allow_origins(value: object) -> tuple[str, ...]:
    origins = []
    for item in _strings(value):
        origin = _origin(item)
        if origin is None:
            raise ConfigError(
                f"expected origins, scheme://host or scheme://host:port, got {shown(item, text=True)}",
                hint="name each origin exactly, e.g. https://app.test; '*' and 'null' would let any web page in",
            )
        scheme, host, port = origin
        origins.append(f"{scheme}://{host}{port}")
    return tuple(origins)


def _paths(value: object) -> tuple[str, ...]:
    for item in _strings(value):
        if (wrong := paths.fault(item)) is not None:
            raise ConfigError(
                f"{shown(item, text=True)} {wrong}", hint="write plain paths: /v2/people is itself and what is below it"
            )
    return _strings(value)


def _accept_paths(value: object) -> tuple[str, ...]:
    if not value:
        raise ConfigError("is empty: no request would pass", hint='leave it out for ["/v2/"]')
    return _paths(value)


def _scope(value: object) -> str:
    # RFC 6749 §3.3
    scope = _string(value)
    if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*", scope):
        raise ConfigError(
            "expected scopes separated by single spaces", hint="copy them from the OAuth application's settings"
        )
    return scope


def _ca_file(value: object) -> Path:
    assert isinstance(value, Path)
    try:
        with value.open("rb"):
            return value
    except OSError as error:
        raise ConfigError(
            f"expected a file that this user may read, got {shown(str(value), text=True)}",
            hint="correct the path, or its permissions",
        ) from error


_RULES: Mapping[str, Callable[[object], object]] = MappingProxyType(
    {
        "listen.host": _listen_host,
        "listen.uds": str,
        "listen.accept_hosts": _accept_hosts,
        "listen.allow_origins": _allow_origins,
        "upstream.api_url": _upstream_origin,
        "upstream.accounts_url": _upstream_origin,
        "upstream.ca_file": _ca_file,
        "auth.client_id": lambda value: _unmangled(_string(value)),
        "auth.redirect_uri": _redirect_uri,
        "auth.scope": _scope,
        "policy.accept_paths": _accept_paths,
        "policy.reject_paths": _paths,
    }
)
