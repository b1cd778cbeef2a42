"""Listening: where the settings have the proxy listen, read without the schema, to ask whether it is up.

1. What is wrong with other settings does not matter: a bad value changes nothing of a proxy that is up
   (docs/contract.md, Settings), and must not have it restarted. No secret is read.
2. It takes a tenth of the time that it takes to load the schema. What both read is the same:
   ``tests/cli/test_healthcheck.py`` compares them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

# `host` and `port`, and `uds` where it is set, as text.
Listening = dict[str, str]

NAMES = ("host", "port", "uds")


def listening(flags: Mapping[str, str], environ: Mapping[str, str], cwd: Path) -> Listening:
    """Return what is in force; ``flags`` may hold ``config`` and ``profile`` as well.

    Raises ValueError, with a message for a person: a file cannot be read, a value must not be repeated, or a socket and
    a port are both set, whichever of them is a flag, with which `serve` would not start either.
    """
    dotenv = _dotenv(cwd / ".env")
    config = flags.get("config") or _first("SLPROXY_CONFIG", environ, dotenv)
    profile = flags.get("profile") or _first("SLPROXY_PROFILE", environ, dotenv) or "default"
    _check_no_api_key("the configuration file", config or "")
    path = cwd / _expanded(config) if config else next((each for each in _usual(environ, cwd) if each.is_file()), None)
    given: Listening = {}
    if path is not None:
        for layer in _in_file(path, profile):
            given |= layer
    given |= _in_variables(dotenv, cwd) | _in_variables(environ, cwd) | _located(flags, cwd)
    for name, value in given.items():
        _check_no_api_key(f"listen.{name}", value)
    if "uds" in given and len(given) > 1:
        names = " and ".join(f"--{name}" if name in flags else f"listen.{name}" for name in NAMES if name in given)
        raise ValueError(f"{names} are set: the proxy listens on a socket or on a port, not both")
    return {"host": "127.0.0.1", "port": "8642"} | given


def _unclear(what: str) -> ValueError:
    return ValueError(f"{what}: slproxy config says why")


def _check_no_api_key(name: str, value: str) -> None:
    if "ak_" in value.lower():
        from slproxy.config import holds_api_key  # noqa: PLC0415  # the whole schema

        if holds_api_key(value):
            raise _unclear(f"{name} looks like an API key of SalesLoft's")


def _first(name: str, *layers: Mapping[str, str]) -> str | None:
    return next((value for layer in layers if (value := layer.get(name, "").strip())), None)


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a user without a home
        return Path(path)


def _located(given: Mapping[str, object], base: Path) -> Listening:
    """Return a layer's values as text; a relative path starts from ``base``."""
    layer = {name: str(given[name]) for name in NAMES if name in given}
    return layer | ({"uds": str(base / _expanded(layer["uds"]))} if "uds" in layer else {})


def _in_variables(variables: Mapping[str, str], cwd: Path) -> Listening:
    given = {name: variables.get(f"SLPROXY_LISTEN__{name.upper()}", "").strip() for name in NAMES}
    return _located({name: value for name, value in given.items() if value}, cwd)


def _usual(environ: Mapping[str, str], cwd: Path) -> Iterator[Path]:
    yield cwd / "slproxy.toml"
    folder = Path(environ.get("XDG_CONFIG_HOME", ""))
    if not folder.is_absolute():
        from platformdirs import user_config_path  # noqa: PLC0415  # containers name their folders

        folder = user_config_path()
    yield folder / "slproxy" / "config.toml"


def _in_file(path: Path, profile: str) -> Iterator[Listening]:
    """Return what a file says for all profiles, and for this one."""
    import tomllib  # noqa: PLC0415  # only where there is a file

    try:
        tree = tomllib.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode())
    except OSError as error:
        raise _unclear(f"the configuration file cannot be read: {path}") from error
    except (ValueError, RecursionError) as error:
        raise _unclear(f"the configuration file is not valid TOML: {path}") from error
    for names in ((), ("profile", profile)):
        table: object = tree
        for name in (*names, "listen"):
            table = table.get(name) if isinstance(table, dict) else None
        yield _located(table, path.parent) if isinstance(table, dict) else {}


def _dotenv(path: Path) -> Mapping[str, str]:
    if not path.is_file():
        return {}
    from dotenv.parser import parse_stream  # noqa: PLC0415  # takes long to load, and few have the file

    try:
        bindings = parse_stream(io.StringIO(path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode()))
        return {each.key: each.value for each in bindings if each.key is not None and each.value is not None}
    except (OSError, ValueError) as error:
        raise _unclear(f"the file of environment variables cannot be read: {path}") from error
