"""What the inspector copies, run as a person would: curl, HTTPie, Python and JavaScript send the same request."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from slproxy.config import ListenSettings, Secret
from tests.support import node
from tests.support.programs import environment
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Message
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.heavy

COMMANDS = Path(__file__).parent / "page" / "commands.mjs"
LOCAL_KEY = "local-key-0123456789"


@dataclass(frozen=True)
class Case:
    """A request as it once came, but for the credentials, which the inspector does not tell."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    binary: bool = False

    def exchange(self) -> dict[str, object]:
        """Return what the page is told of it."""
        size = {"size": len(self.body), "kept": len(self.body)}
        body: dict[str, object] = {"kind": "none", **size}
        if self.binary:
            body = {"kind": "binary", "base64": base64.b64encode(self.body).decode(), **size}
        elif self.body:
            body = {"kind": "text", "text": self.body.decode(), **size}
        came = [("Host", "localhost"), ("Authorization", "Bearer •••"), ("User-Agent", "first/1.0"), *self.headers]
        return {
            "row": {"method": self.method},
            "target": self.target,
            "request": {"headers": came, "body": body},
        }


JSON = ("Content-Type", "application/json")
NASTY = 'it\'s "$HOME" `id` \\ !! \\u0041 é ✓ 😀\n\tb%20c {a,b} [1-3] @x =y :z # \x7f\x01'
CASES = (
    Case("GET", "/v2/people.json?ids[]=1&ids[]=2&q=a+b%20c%2F%2f&name=O'Brien&x=$HOME&y={a,b}&z=!!;(id)*~"),
    Case("GET", "/v2/me.json", (("Accept", "application/json"), ("X-Quoted", 'it\'s "a" $HOME `id`'), ("X-Empty", ""))),
    Case("POST", "/v2/people", (JSON, ("X-At", "@file"), ("X-Eq", "=1"), ("X-Semi", "a;b:c")), NASTY.encode()),
    Case("PUT", "/v2/people/1", (JSON,), json.dumps({"first_name": "@Jane", "note": "a\r\nb"}).encode()),
    Case("PATCH", "/v2/people/1", (), b"a=1&b=%20"),
    Case("POST", "/v2/notes", (JSON,), b"null\0inside"),
    Case("POST", "/v2/imports", (("Content-Type", "application/octet-stream"),), bytes(range(256)), binary=True),
    Case("POST", "/v2/people/1/actions"),
    Case("DELETE", "/v2/people/1"),
    Case("HEAD", "/v2/me.json"),
)
# HTTPie takes half a second to start.
SLOW = (2, 6)


async def run_all(commands: list[str], form: str, home: Path) -> None:
    """Run them in turn: those of a shell in one bash, the others in one process of their language."""
    programs = {
        "curl": ["bash", "-euc", "\n".join(f"{command}\n" for command in commands)],
        "httpie": ["bash", "-euc", "\n".join(f"{command}\n" for command in commands)],
        "requests": [sys.executable, "-c", "\n".join(commands)],
        "fetch": ["node", "--input-type=module", "-e", "\n".join(f"{{\n{each}\n}}" for each in commands)],
    }
    folder = Path(sys.executable).parent
    variables = environment(home, SLPROXY_KEY=LOCAL_KEY)
    variables["PATH"] = f"{folder}:{variables['PATH']}"
    variables.pop("PYTHONWARNINGS")  # HTTPie's own affair
    process = await asyncio.create_subprocess_exec(
        *programs[form],
        cwd=home,
        env=variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(2 * PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == 0, (out + err).decode()


def assert_is_the_same(case: Case, message: Message, *, exact: bool) -> None:
    head = message.head
    assert head.method == case.method
    if exact:
        assert head.target == case.target
    else:  # a library that knows better which characters a URL may hold
        assert unquote_to_bytes(head.target) == unquote_to_bytes(case.target)
    for name, value in case.headers:
        assert head.all(name) == [value]
    if case.body and not any(name == "Content-Type" for name, _ in case.headers):
        assert head.all("Content-Type") == []
    assert message.body == case.body
    assert head.all("Authorization") == [f"Bearer {API_KEY}"]
    assert head.get("User-Agent") != "first/1.0"


@pytest.mark.parametrize("form", ["curl", "httpie", "requests", "fetch"])
async def test_what_is_copied_sends_the_same_request_through_the_proxy(tmp_path: Path, form: str) -> None:
    node.present()
    program = {"curl": "curl", "httpie": str(Path(sys.executable).parent / "http")}.get(form, "node")
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    cases = [CASES[at] for at in SLOW] if form == "httpie" else list(CASES)
    file = tmp_path / "exchanges.json"
    file.write_text(json.dumps([case.exchange() for case in cases]))
    async with ScriptedUpstream() as upstream:
        settings = settings_for(upstream.url)
        listen = ListenSettings(port=0, key=Secret(LOCAL_KEY))
        async with proxy(replace(settings, listen=listen)) as app:
            code, out, err = await node.run("node", str(COMMANDS), str(file), app.urls[0], home=tmp_path)
            assert code == 0, err
            commands = [made[form] for made in json.loads(out)]
            assert all(LOCAL_KEY not in command and "•" not in command for command in commands)
            await run_all(commands, form, tmp_path)
        assert len(upstream.seen) == len(cases)
        for case, message in zip(cases, upstream.seen, strict=True):
            assert_is_the_same(case, message, exact=form == "curl")
