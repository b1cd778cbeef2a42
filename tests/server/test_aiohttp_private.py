"""Private names of aiohttp: those that the server stands on are there, and stand in one file."""

from __future__ import annotations

import ast
import asyncio
import tomllib
from collections.abc import Awaitable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

import slproxy.server
from slproxy.server.aiohttp_private import PRIVATE_NAMES, Ends, Private, RequestHandler, lost
from slproxy.server.client_request import ClientRequest
from tests.support import ROOT
from tests.support.loops import LOOPS, in_loop
from tests.support.raw_http import get
from tests.support.waiting import SOON

FILES = sorted(Path(slproxy.server.__file__).parent.glob("*.py"))


def test_aiohttp_has_every_private_name_that_the_server_stands_on() -> None:
    assert lost(PRIVATE_NAMES) == [], "see slproxy/server/aiohttp_private.py for what each is needed for"


def test_a_name_that_aiohttp_has_lost_is_told_with_its_place_and_its_reason() -> None:
    gone = Private(web.RequestHandler, "_gone", "web_protocol.py, RequestHandler.start", "Nothing works without it.")
    assert lost([gone]) == [
        f"aiohttp {aiohttp.__version__}: RequestHandler has no _gone (was in web_protocol.py, RequestHandler.start)."
        " Nothing works without it."
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_other_file_of_the_server_uses_a_private_name_of_aiohttp(path: Path) -> None:
    owned = {name for owner in (web.RequestHandler, web.StreamResponse, web.Server) for name in dir(owner)}
    private = {name for name in owned if name.startswith("_") and not name.startswith("__")} | {"_kwargs", "_headers"}
    used = {node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
    if path.stem == "aiohttp_private":
        assert used & private <= {each.name for each in PRIVATE_NAMES}, "each is in the list"
    else:
        assert used & private == set()


def test_aiohttp_is_capped_below_the_first_version_that_was_not_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (required,) = [each for each in project["dependencies"] if each.startswith("aiohttp")]
    lowest, _, below = required.removeprefix("aiohttp>=").partition(",<")
    major, minor = aiohttp.__version__.split(".")[:2]
    assert below == f"{major}.{int(minor) + 1}"
    assert lowest.startswith(f"{major}.{minor}.")


class Endless:
    """A response whose end has a defect."""

    keep_alive, is_ended = True, False

    async def write_eof(self) -> None:
        raise RuntimeError("a defect")


class Defective(RequestHandler):
    """A connection of such responses."""

    __slots__ = ()

    async def _served(self) -> Ends:
        return Endless()

    def serve(self, request: ClientRequest) -> Awaitable[Ends]:
        return self._served()

    def error_response(self, request: ClientRequest, error: BaseException) -> Ends:
        raise ConnectionError from error

    def linger(self) -> None:
        self.force_close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_defect_at_the_end_of_a_response_is_told_and_ends_the_connection(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def nothing(request: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError(request)

    async def ask() -> None:
        manager = web.Server(nothing)
        running = asyncio.get_running_loop()
        server = await running.create_server(lambda: Defective(manager, loop=running), "127.0.0.1", 0)
        async with server, asyncio.timeout(SOON):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(get("/v2/a"))
            assert await reader.read() == b""
            writer.close()

    in_loop(loop, ask())
    assert "a defect in slproxy, at the end of a response" in caplog.text
    assert "RuntimeError: a defect" in caplog.text
