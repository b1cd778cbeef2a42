"""Where settings are found: a TOML file, ``.env``, the environment, flags.

Each source gives its values as they stand there, with their place; what they mean is ``values``', and which of them
counts is ``config``'s. A name that is not a setting is a mistake here.
"""

from __future__ import annotations

import codecs
import difflib
import io
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dotenv.parser import parse_stream

from slproxy.errors import ConfigError
from slproxy.settings import CATALOGUE, SECTIONS, Origin, Setting
from slproxy.values import expected, shown

# variable -> its setting, and whether it names a file that holds the value
VARIABLES: Mapping[str, tuple[Setting, bool]] = MappingProxyType(
    {name: (setting, False) for setting in CATALOGUE.values() for name in setting.variables}
    | {
        f"{name}_FILE": (setting, True)
        for setting in CATALOGUE.values()
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
_TOML_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_TOML_NAME = rf"{_TOML_KEY}(?:[ \t]*\.[ \t]*{_TOML_KEY})*"
_TOML_LINE = re.compile(rf"[ \t]*(?:\[[ \t]*(?P<table>{_TOML_NAME})[ \t]*\]|(?P<key>{_TOML_NAME})[ \t]*=)")


@dataclass(frozen=True, kw_only=True)
class Given:
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


def _decoded(content: bytes, label: str) -> str:
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
    for binding in parse_stream(io.StringIO(_decoded(content, ".env"))):
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


def from_variables(variables: Iterable[Variable], cwd: Path, mistakes: list[ConfigError]) -> list[Given]:
    """Return the values of one layer of variables, and add to ``mistakes`` what is unknown or given twice."""
    found: dict[str, tuple[Variable, Given]] = {}
    for each in variables:
        value = each.value.strip()
        # Compose files pass on what is not set as empty.
        if not value or each.name in META or not each.name.startswith(("SLPROXY_", "SALESLOFT_")):
            continue
        if each.name not in VARIABLES:
            if each.name.startswith("SLPROXY_") and not _is_service_link(each.name, value):
                mistakes.append(_unknown_variable(each))
            continue
        setting, from_file = VARIABLES[each.name]
        given = Given(setting=setting, value=value, origin=each.origin, text=True, from_file=from_file, base=cwd)
        other, before = found.setdefault(setting.key, (each, given))
        if before is not given and (from_file or before.from_file or before.value != value):
            mistakes.append(
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
    close = [setting.variables[-1] for setting in CATALOGUE.values() if setting.name == bare]
    close += difflib.get_close_matches(variable.name, [*VARIABLES, *META], n=1)
    return ConfigError(
        f"{variable}: no setting has this name; expected SLPROXY_<SECTION>__<KEY>",
        hint=f"did you mean {close[0]}?" if close else LISTED,
    )


def from_flags(flags: Mapping[str, object], cwd: Path) -> list[Given]:
    """Return the values of the command line, as its parser typed them or still as text."""
    return [
        Given(
            setting=CATALOGUE[key],
            value=list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value,
            origin=Origin(layer="flag", place="--" + CATALOGUE[key].name.replace("_", "-")),
            text=isinstance(value, str),
            base=cwd,
        )
        for key, value in flags.items()
        if value is not None
    ]


def profiles_in(path: Path, content: bytes | None, cwd: Path) -> list[str]:
    """Return the names of the profiles that the file has tables for. Raises ConfigError when it does not parse."""
    named = {} if content is None else _tree(content, _label(path, cwd)).get("profile", {})
    return list(named) if isinstance(named, dict) else []


def _label(path: Path, cwd: Path) -> str:
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)


def _tree(content: bytes, label: str) -> dict[str, object]:
    source = _decoded(content, label)
    try:
        return tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{label}:{_toml_place(str(error), source)}: is not valid TOML",
            hint="text stands in quotes, and a name is given once: toml.io",
        ) from error


def from_toml(
    path: Path, content: bytes | None, profile: str, cwd: Path, mistakes: list[ConfigError]
) -> tuple[list[Given], list[Given]]:
    """Return what the file says for everyone and what it says for ``profile``; names are checked in all profiles."""
    if content is None:
        return [], []
    label = _label(path, cwd)
    tree = _tree(content, label)
    file = _TomlFile(label=label, base=path.parent, lines=_lines(content.decode()), mistakes=mistakes)
    profiles = tree.pop("profile", {})
    given = file.sections(tree, ())
    special: list[Given] = []
    if not isinstance(profiles, dict):
        file.mistake(
            ("profile",), "expected tables such as [profile.work.auth]", "choose one with --profile or SLPROXY_PROFILE"
        )
        profiles = {}
    for name, sections in profiles.items():
        if not PROFILE.fullmatch(name):
            file.mistake(("profile", name), f"expected {PROFILE_NAME}", "choose another name")
        tables = file.sections(sections, ("profile", name))
        if name == profile:
            special = tables
    return given, special


def _toml_place(message: str, source: str) -> str:
    """Return ``line:column``; tomllib tells them only in its message, and of the end it says only that."""
    match = re.search(r"at line (\d+), column (\d+)\)$", message)
    return f"{match[1]}:{match[2]}" if match else f"{source.count(chr(10)) + 1}:{len(source) - source.rfind(chr(10))}"


def _lines(source: str) -> dict[tuple[str, ...], tuple[int, str]]:
    """Return the line that each table and key starts on, and its text; tomllib keeps none.

    A scan and no parser: within inline tables it finds nothing, and then the line of what holds them is named.
    """
    found: dict[tuple[str, ...], tuple[int, str]] = {}
    table: tuple[str, ...] = ()
    quoted = False
    for number, line in enumerate(source.split("\n"), start=1):
        match = None if quoted else _TOML_LINE.match(line)
        if (line.count('"""') + line.count("'''")) % 2:
            quoted = not quoted
        if match is None:
            continue
        name = tuple(part.strip("\"'") for part in re.findall(_TOML_KEY, match["table"] or match["key"]))
        table, full = (name, name) if match["table"] else (table, table + name)
        for end in range(1, len(full) + 1):
            found.setdefault(full[:end], (number, line))
    return found


@dataclass(frozen=True, kw_only=True)
class _TomlFile:
    """One parsed file: turns its tables into values given, and notes what it does not know."""

    label: str
    base: Path
    lines: Mapping[tuple[str, ...], tuple[int, str]]
    mistakes: list[ConfigError]

    def origin(self, name: tuple[str, ...]) -> Origin:
        number, _ = self._line(name)
        return Origin(layer="file", place=f"{self.label}:{number}" if number else self.label)

    def _line(self, name: tuple[str, ...]) -> tuple[int, str]:
        nearest = (name[:end] for end in range(len(name), 0, -1))
        return next((self.lines[each] for each in nearest if each in self.lines), (0, ""))

    def sections(self, tree: object, prefix: tuple[str, ...]) -> list[Given]:
        if not isinstance(tree, dict):
            self.mistake(prefix, "expected tables such as [profile.work.auth]", "put its settings below a section")
            return []
        given: list[Given] = []
        for section, table in tree.items():
            if section not in SECTIONS:
                self._unknown((*prefix, section), section, SECTIONS)
            elif not isinstance(table, dict):
                self.mistake((*prefix, section), f"expected a table, got {shown(table)}", f"begin it with [{section}]")
            else:
                given += self._section(section, table, (*prefix, section))
        return given

    def _section(self, section: str, table: Mapping[str, object], prefix: tuple[str, ...]) -> list[Given]:
        given: dict[str, Given] = {}
        for name, value in table.items():
            from_file = f"{section}.{name}" not in CATALOGUE
            setting = CATALOGUE.get(f"{section}.{name.removesuffix('_file') if from_file else name}")
            if setting is None or (from_file and not (setting.from_file and name.endswith("_file"))):
                names = [key.partition(".")[2] for key in CATALOGUE if key.startswith(f"{section}.")]
                self._unknown((*prefix, name), f"{section}.{name}", names)
                continue
            if setting.name in given:
                reason = f"expected either {setting.name} or {setting.name}_file, got both"
                self.mistake((*prefix, name), reason, "remove one of the two")
            # tomllib gives 0o600 and 384 alike, and who writes 600 means 0o600.
            octal = re.search(rf"{name}[\"']?\s*=\s*0o", self._line((*prefix, name))[1])
            if setting.kind == "mode" and isinstance(value, int) and not octal:
                reason = f"expected {expected(setting)}, got a number that is not in octal"
                self.mistake((*prefix, name), reason, 'write it as "0600" or 0o600')
                continue
            given[setting.name] = Given(
                setting=setting,
                value=value,
                origin=self.origin((*prefix, name)),
                text=False,
                from_file=from_file,
                base=self.base,
            )
        return list(given.values())

    def _unknown(self, name: tuple[str, ...], label: str, names: Iterable[str]) -> None:
        elsewhere = [key for key, setting in CATALOGUE.items() if setting.name == name[-1]]
        close = difflib.get_close_matches(name[-1], list(names), n=1) or elsewhere
        hint = f"did you mean {close[0]}?" if close else LISTED
        what = "section" if label == name[-1] else "setting"
        self.mistakes.append(ConfigError(f"{label} ({self.origin(name)}): no {what} has this name", hint=hint))

    def mistake(self, name: tuple[str, ...], reason: str, hint: str) -> None:
        key = ".".join(name[-2:] if name[0] != "profile" or len(name) > 3 else name)
        self.mistakes.append(ConfigError(f"{key} ({self.origin(name)}): {reason}", hint=hint))
