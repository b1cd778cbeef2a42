"""docs/contract.md is kept current: what it lists is what there is. ``test_errors.py`` holds its table of errors."""

from __future__ import annotations

import re
from pathlib import Path

from slproxy.cli.parser import COMMANDS
from slproxy.config import SCHEMA
from slproxy.config.parse import parse
from slproxy.config.schema import client_schema
from slproxy.errors import ConfigError, LoginRequired, SlproxyError
from slproxy.forward.rules import METHODS
from slproxy.server.pages import PAGES
from tests.support.docs import section, table


def named(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_each_command_is_listed() -> None:
    listed = [re.sub(r" [-\[].*", "", named(command)[0]) for command, _ in table("contract.md", "Commands")]
    assert sorted(listed) == sorted(command.name for command in COMMANDS)


def test_each_setting_is_listed_in_its_section() -> None:
    listed = {
        f"{named(section_name)[0]}.{key}"
        for section_name, keys in table("contract.md", "Settings")
        # A key stands outside of the parentheses, which hold its default and what else may be said of it.
        for key in named(re.sub(r"\([^()]*\)", "", keys))
    }
    assert listed == {*SCHEMA, *(f"client.NAME.{name}" for name in client_schema("name"))}


def test_each_default_is_the_setting_s_own() -> None:
    for section_name, keys in table("contract.md", "Settings"):
        for key, said in re.findall(r"`(\w+)` \(([^()]*)\)", keys):
            where = named(section_name)[0]
            setting = client_schema("name")[key] if where == "client.NAME" else SCHEMA[f"{where}.{key}"]
            default = re.split(r"[;:,] ", said)[0]
            if default.startswith("by default"):
                continue
            meant = None if default == "none" else parse(setting, default.split(" for ")[0], text=True, base=Path())
            assert meant == setting.default, setting.key


def test_each_page_of_the_proxy_is_named() -> None:
    assert {page.removeprefix("/_slproxy/") for page in PAGES} <= set(named(section("contract.md", "Own pages")))


def test_the_methods_that_pass_are_named() -> None:
    assert all(re.search(rf"\b{method}\b", section("contract.md", "Check")) for method in METHODS)


def test_the_exit_codes_are_named() -> None:
    codes = {
        SlproxyError.exit_code: "failed",
        ConfigError.exit_code: "bad usage",
        LoginRequired.exit_code: "login needed",
    }
    for code, meaning in codes.items():
        assert f"{code} {meaning}" in section("contract.md", "Exit codes").replace("\n", " ")
