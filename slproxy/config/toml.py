"""Settings in a TOML file, with the line of each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from slproxy.config.files import decode_text
from slproxy.config.messages import LISTED, expected, redacted
from slproxy.config.origin import Origin
from slproxy.config.raw_value import RawValue
from slproxy.config.schema import (
    CLIENT,
    CLIENT_NAME,
    CLIENT_SECTION,
    PROFILE,
    PROFILE_NAME,
    SCHEMA,
    SECTIONS,
    client_schema,
)
from slproxy.config.setting import Setting
from slproxy.errors import ConfigError

_TOML_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_TOML_NAME = rf"{_TOML_KEY}(?:[ \t]*\.[ \t]*{_TOML_KEY})*"
_TOML_LINE = re.compile(rf"[ \t]*(?:\[[ \t]*(?P<table>{_TOML_NAME})[ \t]*\]|(?P<key>{_TOML_NAME})[ \t]*=)")


def profiles_in(path: Path, content: bytes | None, cwd: Path) -> list[str]:
    """Return the names of the profiles that the file has tables for. Raises ConfigError when it does not parse."""
    named = {} if content is None else _tree(content, _path_label(path, cwd)).get("profile", {})
    return list(named) if isinstance(named, dict) else []


def _tree(content: bytes, label: str) -> dict[str, object]:
    import tomllib  # noqa: PLC0415  # only where there is a file

    source = decode_text(content, label)
    try:
        return tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{label}:{_toml_place(str(error), source)}: is not valid TOML",
            hint="quote strings; do not repeat keys: https://toml.io",
        ) from error
    except (ValueError, RecursionError):  # an integer of thousands of digits; brackets in brackets in brackets
        raise ConfigError(f"{label}: holds a number too long, or tables nested too deep", hint="fix it") from None


def from_toml(
    path: Path, content: bytes | None, profile: str, cwd: Path, errors: list[ConfigError], *, found: bool
) -> tuple[list[RawValue], list[RawValue]]:
    """Return the settings for every profile and those for ``profile``; names are checked in all profiles.

    ``found`` says that nobody named the file.
    """
    if content is None:
        return [], []
    label = _path_label(path, cwd)
    tree = _tree(content, label)
    file = _TomlFile(
        label=label,
        base=path.parent,
        found=str(path) if found else "",
        lines=_lines(content.decode()),
        errors=errors,
    )
    profiles = tree.pop("profile", {})
    given = file.sections(tree, ())
    special: list[RawValue] = []
    if not isinstance(profiles, dict):
        file.error(
            ("profile",), "expected tables such as [profile.work.auth]", "choose one with --profile or SLPROXY_PROFILE"
        )
        profiles = {}
    for name, sections in profiles.items():
        if not PROFILE.fullmatch(name):
            file.error(("profile", name), f"expected {PROFILE_NAME}", "choose another name")
        tables = file.sections(sections, ("profile", name))
        if name == profile:
            special = tables
    return given, special


def _toml_place(message: str, source: str) -> str:
    """Return ``line:column``, which tomllib has in its message only, and not for the end of the file."""
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
    """One parsed file: turns its tables into raw values, and its unknown names into errors."""

    label: str
    base: Path
    found: str
    lines: Mapping[tuple[str, ...], tuple[int, str]]
    errors: list[ConfigError]

    def origin(self, name: tuple[str, ...]) -> Origin:
        number, _ = self._line(name)
        return Origin(layer="file", place=f"{self.label}:{number}" if number else self.label, found=self.found)

    def _line(self, name: tuple[str, ...]) -> tuple[int, str]:
        nearest = (name[:end] for end in range(len(name), 0, -1))
        return next((self.lines[each] for each in nearest if each in self.lines), (0, ""))

    def sections(self, tree: object, prefix: tuple[str, ...]) -> list[RawValue]:
        if not isinstance(tree, dict):
            self.error(prefix, "expected tables such as [profile.work.auth]", "put its settings below a section")
            return []
        given: list[RawValue] = []
        for section, table in tree.items():
            if section not in SECTIONS and section != CLIENT_SECTION:
                self._unknown((*prefix, section), section, [*SECTIONS, CLIENT_SECTION])
            elif not isinstance(table, dict):
                self.error((*prefix, section), f"expected a table, got {redacted(table)}", f"begin it with [{section}]")
            elif section == CLIENT_SECTION:
                given += self._clients(table, (*prefix, section))
            else:
                known = {setting.name: setting for setting in SCHEMA.values() if setting.section == section}
                given += self._section(known, table, (*prefix, section))
        return given

    def _clients(self, tables: Mapping[str, object], prefix: tuple[str, ...]) -> list[RawValue]:
        given: list[RawValue] = []
        for name, table in tables.items():
            if not isinstance(table, dict):
                self.error((*prefix, name), "expected tables such as [client.report]", "give the client a name")
            elif not CLIENT.fullmatch(name):
                self.error((*prefix, name), f"expected {CLIENT_NAME}", "choose another name")
            else:
                given += self._section(client_schema(name), table, (*prefix, name))
        return given

    def _section(
        self, known: Mapping[str, Setting], table: Mapping[str, object], prefix: tuple[str, ...]
    ) -> list[RawValue]:
        given: dict[str, RawValue] = {}
        for name, value in table.items():
            from_file = name not in known
            setting = known.get(name.removesuffix("_file") if from_file else name)
            if setting is None or (from_file and not (setting.from_file and name.endswith("_file"))):
                section = ".".join(prefix[2:] if prefix[0] == "profile" else prefix)
                self._unknown((*prefix, name), f"{section}.{name}", known)
                continue
            if setting.name in given:
                reason = f"expected either {setting.name} or {setting.name}_file, got both"
                self.error((*prefix, name), reason, "remove one of the two")
            # tomllib gives 0o600 and 384 alike, and whoever writes 600 means 0o600.
            octal = re.search(rf"{name}[\"']?\s*=\s*0o", self._line((*prefix, name))[1])
            if setting.kind == "mode" and isinstance(value, int) and not octal:
                reason = f"expected {expected(setting)}, got a number that is not in octal"
                self.error((*prefix, name), reason, 'write it as "0600" or 0o600')
                continue
            given[setting.name] = RawValue(
                setting=setting,
                value=value,
                origin=self.origin((*prefix, name)),
                text=False,
                from_file=from_file,
                base=self.base,
            )
        return list(given.values())

    def _unknown(self, name: tuple[str, ...], label: str, names: Iterable[str]) -> None:
        elsewhere = [key for key, setting in SCHEMA.items() if setting.name == name[-1]]
        close = difflib.get_close_matches(name[-1], list(names), n=1) or elsewhere
        hint = f"did you mean {close[0]}?" if close else LISTED
        what = "section" if label == name[-1] else "setting"
        self.errors.append(ConfigError(f"{label} ({self.origin(name)}): no {what} has this name", hint=hint))

    def error(self, name: tuple[str, ...], reason: str, hint: str) -> None:
        key = ".".join(name[-2:] if name[0] != "profile" or len(name) > 3 else name)
        self.errors.append(ConfigError(f"{key} ({self.origin(name)}): {reason}", hint=hint))


def _path_label(path: Path, cwd: Path) -> str:
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)
