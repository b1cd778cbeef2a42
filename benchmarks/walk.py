"""Walk: how many calls of how many functions in how many files a request takes, and how often they change the file.

``python -m benchmarks.walk`` sends a warm GET, a POST whose token is rejected once (401) and a POST that is refused
once (429) through a proxy in this process, and counts with ``sys.setprofile`` what of slproxy is called on the way: a
coroutine that goes on after a wait counts again. What libraries call besides is counted in one sum, in which are the
client and the upstream of this file too. ``--show get`` prints the walk itself, file by file.
"""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import io
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType

import slproxy
from slproxy.app import App
from slproxy.config import AuthSettings, ListenSettings, Secret, Settings, StoreSettings, UpstreamSettings
from slproxy.observe import AccessLog

PACKAGE = Path(slproxy.__file__).parent
SANDBOX = PACKAGE / "sandbox"

HEADERS = "Host: localhost\r\nUser-Agent: curl/8.5\r\nAccept: */*\r\n"
GET = f"GET /v2/me.json HTTP/1.1\r\n{HEADERS}\r\n".encode()
BODY = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
POST = f"POST /v2/people.json HTTP/1.1\r\n{HEADERS}{BODY}".encode()
WALKS = {"get": (GET, ""), "401": (POST, "401 Unauthorized"), "429": (POST, "429 Too Many Requests")}
# What a request leaves to do after its answer is done by then, in seconds.
AFTERWARDS = 0.2

Call = tuple[str, str]
ELSEWHERE: Call = ("", "")


class Upstream:
    """Answers the API and the token endpoint; the next request gets ``refusal`` first, if there is one."""

    def __init__(self) -> None:
        self.refusal = ""
        self._tokens = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or b"0"))
                writer.write(self._reply(is_token=head.startswith(b"POST /oauth/token ")))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _reply(self, *, is_token: bool) -> bytes:
        status, body = "200 OK", '{"data":{}}'
        if is_token:
            self._tokens += 1
            body = f'{{"access_token":"token-{self._tokens}","token_type":"bearer","expires_in":7200}}'
        elif self.refusal:
            status, self.refusal = self.refusal, ""
        lines = [
            f"HTTP/1.1 {status}",
            f"Date: {email.utils.formatdate(usegmt=True)}",
            "x-ratelimit-endpoint-cost: 1",
            "x-ratelimit-remaining-minute: 599",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            # So that the walk of a 429 does not wait for a minute.
            *(["Retry-After: 0"] if status.startswith("429") else []),
        ]
        return "\r\n".join([*lines, "", body]).encode()


def counting(calls: list[Call]) -> Callable[[FrameType, str, object], None]:
    """Return a profile function that notes each call of Python's: whose of slproxy's code, less the sandbox, it is."""

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        path = Path(frame.f_code.co_filename)
        is_ours = path.is_relative_to(PACKAGE) and not path.is_relative_to(SANDBOX)
        calls.append((str(path.relative_to(PACKAGE)), frame.f_code.co_qualname) if is_ours else ELSEWHERE)

    return profile


async def walks() -> dict[str, list[Call]]:
    """Return the calls of each walk, in order."""
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = Settings(
        listen=ListenSettings(port=0),
        upstream=UpstreamSettings(api_url=url, accounts_url=url),
        auth=AuthSettings(grant="client_credentials", client_id="walk", client_secret=Secret("walk")),
        store=StoreSettings(kind="memory", path=Path("none")),
    )
    log = AccessLog(io.StringIO(), pretty=False, colour=False)
    taken: dict[str, list[Call]] = {}
    async with server, App(settings, listeners=[log]) as app:
        await app.listen()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(app.urls[0].rpartition(":")[2]))

        async def ask(name: str) -> list[Call]:
            request, upstream.refusal = WALKS[name]
            calls: list[Call] = []
            await asyncio.sleep(AFTERWARDS)
            sys.setprofile(counting(calls))
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), "a walk ends well"
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            await asyncio.sleep(AFTERWARDS)
            sys.setprofile(None)
            return calls

        for _ in range(3):
            await ask("get")
        for name in WALKS:
            taken[name] = await ask(name)
        writer.close()
    await asyncio.sleep(AFTERWARDS)
    return taken


def main() -> None:
    """Print a line for each walk."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--show", choices=WALKS, help="print this walk, file by file")
    shown = parser.parse_args().show
    for name, all_calls in asyncio.run(walks()).items():
        calls = [call for call in all_calls if call != ELSEWHERE]
        jumps = sum(one[0] != other[0] for one, other in pairwise(calls))
        files, functions = {path for path, _ in calls}, set(calls)
        print(
            f"{name:<4} {len(calls)} calls, {len(functions)} functions, {len(files)} files, {jumps} jumps; "
            f"{len(all_calls)} calls with libraries"
        )
        if name == shown:
            at = ""
            for path, function in calls:
                print(*([] if path == at else [f"  {path}\n"]), f"      {function}", sep="")
                at = path


if __name__ == "__main__":
    main()
