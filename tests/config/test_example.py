"""``config.example.toml``: every setting, as the program knows it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from slproxy.config import SCHEMA, Egress
from slproxy.config.schema import SECTIONS
from slproxy.config.setting import Setting
from tests.support import ROOT
from tests.support.settings import loaded

EXAMPLE = ROOT / "config.example.toml"


def literal(setting: Setting) -> str:
    """Return how the example writes a default, as a pattern: sizes with their unit, modes in octal."""
    match setting.default:
        case None:
            return r"\d+" if setting.kind == "integer" else '"[^"]*"'
        case int(number) if setting.kind == "mode":
            return f'"{number:04o}"'
        case int(number) if setting.kind == "size":
            return f'"{number >> 20} MiB"' if number % 2**20 == 0 else f'"{number >> 10} KiB"'
        case float(number):
            return re.escape(f"{number:g}")
        case Egress():
            return '"env"'
        case other:
            return re.escape(json.dumps(other))


def test_the_example_tells_of_every_setting_what_the_program_knows() -> None:
    sections = [
        rf"\[{section}\]\n"
        + "".join(
            rf"# {re.escape(setting.doc)}\n# {setting.name} = {literal(setting)}\n"
            for setting in SCHEMA.values()
            if setting.section == section
        )
        for section in SECTIONS
    ]
    text = EXAMPLE.read_text()
    assert re.fullmatch("\n".join(sections), text[text.index("\n[listen]") + 1 :])


def test_the_example_as_it_is_changes_nothing(tmp_path: Path) -> None:
    assert loaded(tmp_path, config=EXAMPLE) == loaded(tmp_path)


def test_the_example_uncommented_equals_the_defaults(tmp_path: Path) -> None:
    lines, section, uncommented = [], "", 0
    for line in EXAMPLE.read_text().splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        match = re.fullmatch(r"# ((\w+) = .*)", line)
        given = match is not None and SCHEMA[f"{section}.{match[2]}"].default is not None
        # A socket and an address exclude each other; the socket has no default.
        lines.append(match[1] if match and given else line)
        uncommented += given
    settings = loaded(tmp_path, toml="\n".join(lines))
    assert uncommented == len([setting for setting in SCHEMA.values() if setting.default is not None])
    assert len([origin for origin in settings.origins.values() if origin.layer == "file"]) == uncommented
    assert settings == loaded(tmp_path, toml="")
