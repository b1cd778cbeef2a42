"""The man page: it is made of the parser, whole, and without a fault to mandoc and man."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from slproxy.cli.parser import COMMANDS, build_parser
from slproxy.cli.usage import Parser
from tests.support import ROOT
from tests.support.programs import environment

PAGE = "slproxy/cli/text/slproxy.1"


def parsers(parser: Parser) -> Iterator[Parser]:
    yield parser
    for below in parser.commands().values():
        yield from parsers(below)


def test_the_page_that_is_kept_is_what_the_parser_makes_whatever_the_terminal(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "slproxy.cli.man"],
        env=environment(tmp_path, COLUMNS="40"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout == (ROOT / PAGE).read_text("utf-8"), f"python -m slproxy.cli.man > {PAGE}"


def test_the_wheel_has_it_where_man_looks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"] == {PAGE: "share/man/man1/slproxy.1"}


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_has_nothing_to_say_about_it() -> None:
    linted = subprocess.run(["mandoc", "-T", "lint", PAGE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_man_shows_every_command_and_flag(tmp_path: Path) -> None:
    shown = subprocess.run(
        ["man", "--warnings", "-l", PAGE],
        cwd=ROOT,
        env=environment(tmp_path, MANWIDTH="80", LANG="C.UTF-8"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stderr == ""
    page = re.sub(r".\x08", "", shown.stdout)
    for command in COMMANDS:
        assert f"\n   {command.name}\n       slproxy {command.name} " in page
    for name in {name for parser in parsers(build_parser()) for flag in parser.flags() for name in flag.names}:
        assert re.search(rf"^       (-\w, )?{name}\b", page, re.MULTILINE), name
    assert re.search(r"^EXIT CODES$\s+0 done, 1 failed", page, re.MULTILINE)
