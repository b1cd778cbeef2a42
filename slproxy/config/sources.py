"""Where settings are found: a TOML file, ``.env``, the environment, flags.

Each source gives its values as they stand there, with their place; what they mean is ``values``', and which of them
counts is ``config``'s. A name that is not a setting is an error here.
"""

from __future__ import annotations

import codecs
import difflib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dotenv.parser import parse_stream

from slproxy.config.schema import SCHEMA, Origin, Setting
from slproxy.errors import ConfigError

# variable -> its setting, and whether it names a file that holds the value
VARIABLES: Mapping[str, tuple[Setting, bool]] = MappingProxyType(
    {name: (setting, False) for setting in SCHEMA.values() for name in setting.variables}
    | {
        f"{name}_FILE": (setting, True)
        for setting in SCHEMA.values()
        if setting.from_file
        for name in setting.variables
    }
)
LISTED = "config.example.toml lists them all"
META = ("SLPROXY_CONFIG", "SLPROXY_PROFILE")

PROFILE_NAME = "a name of 1 to 64 letters, digits, '-' or '_'"
PROFILE = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What Kubernetes puts into the pods beside a Service called slproxy or slproxy-…:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(
    r"SLPROXY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_PORT = re.compile(r"SLPROXY_(\w+_)?PORT")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, kw_only=True)
class RawValue:
    """A value as somebody gave it, before it is understood."""

    setting: Setting
    value: object
    origin: Origin
    # Text of an environment or a command line, where all types are spelt out in letters.
    text: bool
    # The value is the path of a file that holds the value.
    from_file: bool = False
    # What a relative path starts from.
    base: Path


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A variable of the environment or of ``.env``."""

    name: str
    value: str
    origin: Origin

    def __str__(self) -> str:
        return self.name if self.origin.layer == "env" else f"{self.name} ({self.origin})"


def read(path: Path, what: str) -> bytes | None:
    """Return what is in the file, less a byte order mark, and None if there is no such file; else ConfigError."""
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what} cannot be read: {path}", hint="it must be a file that this user may read") from error


def decode_text(content: bytes, label: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ConfigError(f"{label}:{line}:{column}: is not UTF-8", hint="save the file as UTF-8") from error


def from_environ(environ: Mapping[str, str]) -> list[Variable]:
    """Return the variables of the environment."""
    return [Variable(name=name, value=value, origin=Origin(layer="env", place=name)) for name, value in environ.items()]


def from_dotenv(cwd: Path) -> Iterator[Variable]:
    """Yield the variables of ``.env``; a line of another program's that does not parse is that program's affair."""
    path = cwd / ".env"
    # A folder of this name is somebody's virtual environment.
    content = None if path.is_dir() else read(path, "the file of environment variables")
    if content is None:
        return
    found: dict[str, Variable] = {}
    # dotenv_values, which stands on this parser, neither gives the lines nor says which one it could not read.
    for binding in parse_stream(io.StringIO(decode_text(content, ".env"))):
        source = binding.original.string
        line = binding.original.line + source[: len(source) - len(source.lstrip())].count("\n")
        if binding.error and re.match(r"\s*(export\s+)?(SLPROXY|SALESLOFT)_", source):
            raise ConfigError(f".env:{line}: expected NAME=value", hint="close the quote, or quote the whole value")
        if binding.key is not None and binding.value is not None:
            # As a shell would have it, the last one of a name counts.
            found[binding.key] = Variable(
                name=binding.key, value=binding.value, origin=Origin(layer="dotenv", place=f".env:{line}")
            )
    yield from found.values()


def from_variables(variables: Iterable[Variable], cwd: Path, errors: list[ConfigError]) -> list[RawValue]:
    """Return the values of one layer of variables, and add to ``errors`` what is unknown or given twice."""
    found: dict[str, tuple[Variable, RawValue]] = {}
    for each in variables:
        value = each.value.strip()
        # Compose files pass on what is not set as empty.
        if not value or each.name in META or not each.name.startswith(("SLPROXY_", "SALESLOFT_")):
            continue
        if each.name not in VARIABLES:
            if each.name.startswith("SLPROXY_") and not _is_service_link(each.name, value):
                errors.append(_unknown_variable(each))
            continue
        setting, from_file = VARIABLES[each.name]
        given = RawValue(setting=setting, value=value, origin=each.origin, text=True, from_file=from_file, base=cwd)
        other, before = found.setdefault(setting.key, (each, given))
        if before is not given and (from_file or before.from_file or before.value != value):
            errors.append(
                ConfigError(
                    f"{setting.key}: {other} and {each} are both set, and only one can count",
                    hint=f"unset {other.name} or {each.name}",
                )
            )
    return [given for _, given in found.values()]


def _is_service_link(name: str, value: str) -> bool:
    # SLPROXY_PORT=9000 is somebody's mistake and must be told; Kubernetes' own is tcp://10.0.0.1:8642.
    ours = _SERVICE_LINK.fullmatch(name) or (_SERVICE_PORT.fullmatch(name) and _SERVICE_URL.match(value))
    return bool(ours) and "__" not in name


def _unknown_variable(variable: Variable) -> ConfigError:
    bare = variable.name.removeprefix("SLPROXY_").lower()
    close = [setting.variables[-1] for setting in SCHEMA.values() if setting.name == bare]
    close += difflib.get_close_matches(variable.name, [*VARIABLES, *META], n=1)
    return ConfigError(
        f"{variable}: no setting has this name; expected SLPROXY_<SECTION>__<KEY>",
        hint=f"did you mean {close[0]}?" if close else LISTED,
    )


def from_flags(flags: Mapping[str, object], cwd: Path) -> list[RawValue]:
    """Return the values of the command line, as its parser typed them or still as text."""
    return [
        RawValue(
            setting=SCHEMA[key],
            value=list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value,
            origin=Origin(layer="flag", place="--" + SCHEMA[key].name.replace("_", "-")),
            text=isinstance(value, str),
            base=cwd,
        )
        for key, value in flags.items()
        if value is not None
    ]


def path_label(path: Path, cwd: Path) -> str:
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)
