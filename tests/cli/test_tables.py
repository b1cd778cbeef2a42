"""Tables and colours: what is printed fits the terminal; it is plain where there is none, or nobody wants colours."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from slproxy.cli.table import laid_out
from slproxy.observe import wants_colour
from tests.support.commands import KEY, free_port, pointed_at, run_here
from tests.support.programs import program, spawn
from tests.support.raw_http import get, raw
from tests.support.terminals import terminal

NOBODY = "http://127.0.0.1:9"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


async def on_a_terminal(*arguments: str, home: Path, env: dict[str, str], columns: int = 80) -> list[str]:
    """Run a command whose standard output is a terminal; return the lines that it printed."""
    with terminal(columns=columns) as it:
        nothing = asyncio.subprocess.DEVNULL
        process = await spawn(arguments, home, {"TERM": "xterm", **env}, stdin=nothing, stdout=it.file)
        ended = asyncio.create_task(process.wait())
        while not ended.done():
            it.shows()
            await asyncio.sleep(0.01)
        it.shows()
    return it.drawn.split("\r\n")[:-1]


def lines(rows: Sequence[Sequence[str]], width: int | None, *, gap: int = 2, least: int = 0) -> list[str]:
    return ["".join(cells).rstrip() for cells in laid_out(rows, gap=gap, least=least, width=width)]


@pytest.mark.parametrize("width", [None, 40])
def test_columns_are_as_wide_as_what_is_in_them(width: int | None) -> None:
    rows = [("name", "/a/path/of/some/length", "default"), ("another", "two words", "env X")]
    assert lines(rows, width) == [
        "name     /a/path/of/some/length  default",
        "another  two words               env X",
    ]


def test_on_a_terminal_the_widest_column_gives_way_and_a_cell_goes_on_under_itself() -> None:
    rows = [("name", "/a/path/of/some/length", "default"), ("another", "two words", "env X")]
    assert lines(rows, 35) == [
        "name     /a/path/of/some/l  default",
        "         ength",
        "another  two words          env X",
    ]
    assert lines(rows, 26) == [  # no narrower than can be read
        "name     /a/path/of/s  default",
        "         ome/length",
        "another  two words     env X",
    ]


def test_a_word_of_the_main_column_is_not_broken() -> None:
    rows = [("store", "run chmod 600 /home/jane/.local/state/slproxy/default.json")]
    assert lines(rows, 30, gap=1, least=8) == [
        "store    run chmod 600",
        "         /home/jane/.local/state/slproxy/default.json",
    ]


def test_without_a_terminal_one_long_value_moves_no_other_row() -> None:
    rows = [("a", "x" * 100, "1"), ("b", "y", "2")]
    assert lines(rows, None) == [f"a  {'x' * 100}  1", f"b  {'y':<48}  2"]


@pytest.mark.parametrize(
    ("environ", "is_terminal", "wanted"),
    [
        pytest.param({"TERM": "xterm"}, True, True, id="a terminal"),
        pytest.param({}, True, True, id="a terminal that nobody describes"),
        pytest.param({"TERM": "xterm"}, False, False, id="a pipe"),
        pytest.param({"TERM": "dumb"}, True, False, id="a dumb terminal"),
        pytest.param({"NO_COLOR": "1"}, True, False, id="NO_COLOR"),
        pytest.param({"NO_COLOR": ""}, True, True, id="NO_COLOR that is empty"),
        pytest.param({"FORCE_COLOR": "1", "TERM": "dumb"}, False, True, id="FORCE_COLOR"),
        pytest.param({"FORCE_COLOR": "0"}, True, False, id="FORCE_COLOR of 0"),
        pytest.param({"FORCE_COLOR": ""}, False, False, id="FORCE_COLOR that is empty"),
        pytest.param({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False, id="both"),
    ],
)
def test_colours_are_where_they_are_wanted(environ: dict[str, str], is_terminal: bool, wanted: bool) -> None:
    assert wants_colour(environ, is_terminal=is_terminal) == wanted


@pytest.mark.parametrize("command", ["config", "status", "profiles", "doctor"])
async def test_what_is_printed_fits_a_terminal_and_tells_the_same_as_elsewhere(tmp_path: Path, command: str) -> None:
    env = pointed_at(NOBODY, SALESLOFT_CLIENT_ID="marker", SLPROXY_LISTEN__PORT=str(free_port()))
    env["SLPROXY_RETRY__ATTEMPTS"] = "1"
    shown = [COLOUR.sub("", line) for line in await on_a_terminal(command, home=tmp_path, env=env)]
    plain = (await run_here(command, home=tmp_path, env=env)).out
    # But for a path that is a word of its own.
    assert [line for line in shown if len(line) > 80 and not line.split()[-1].startswith("/")] == []
    assert "\x1b" not in plain
    assert sorted("".join(shown).replace(" ", "")) == sorted("".join(plain.split()))


async def test_doctor_s_states_are_in_colour(tmp_path: Path) -> None:
    env = pointed_at(NOBODY, SALESLOFT_API_KEY=KEY, SLPROXY_LISTEN__PORT=str(free_port()), SLPROXY_RETRY__ATTEMPTS="1")
    lines = await on_a_terminal("doctor", home=tmp_path, env=env)
    assert any(line.startswith("\x1b[32mok\x1b[0m       config") for line in lines)
    assert any(line.startswith("\x1b[31mbroken\x1b[0m   tls") for line in lines)
    assert COLOUR.search("".join(await on_a_terminal("doctor", home=tmp_path, env=env | {"NO_COLOR": "1"}))) is None
    forced = (await run_here("doctor", home=tmp_path, env=env | {"FORCE_COLOR": "1"})).out
    assert COLOUR.search(forced) is not None


@pytest.mark.parametrize(("more", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True)])
async def test_the_log_has_colours_where_they_are_wanted(tmp_path: Path, more: dict[str, str], coloured: bool) -> None:
    env = {"SLPROXY_LOG__FORMAT": "pretty", **more}
    async with program("serve", "--sandbox", "--port", "0", home=tmp_path, env=env) as server:
        await raw(server.url, get("/v2/people"))
        assert await server.stop() == 0
    (line,) = [line for line in server.errors if "/v2/people" in line]
    assert (COLOUR.search(line) is not None) == coloured
