"""``slproxy inspect``: where the inspector is, and that a browser gets there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.config import InspectSettings, ListenSettings, Secret
from slproxy.sandbox import Sandbox
from tests.support.commands import free_port, pointed_at, run_here
from tests.support.programs import program
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import get, port_of, raw
from tests.support.waiting import until

LOCAL_KEY = "a-local-key-of-many-letters"


async def test_it_prints_the_address_where_no_browser_is_wanted_or_can_be(sandbox: Sandbox, tmp_path: Path) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        port = port_of(app.urls[0])
        env = pointed_at(sandbox.url, SLPROXY_LISTEN__PORT=str(port))
        for words in (("--no-browser",), ()):
            code, out, err = await run_here("inspect", *words, home=tmp_path, env=env)
            assert (code, out, err) == (0, f"http://127.0.0.1:{port}/_slproxy/\n", "")
        answer = await raw(app.urls[0], get("/_slproxy/"))
        assert (answer.head.status, answer.head.get("Content-Type")) == (200, "text/html; charset=utf-8")


async def test_it_opens_the_browser_and_the_key_is_in_no_address(sandbox: Sandbox, tmp_path: Path) -> None:
    command, handed = tmp_path / "browser", tmp_path / "handed"
    command.write_text(f'#!/bin/sh\necho "$1" >{handed}\n')
    command.chmod(0o755)
    settings = replace(settings_for(sandbox.url), listen=ListenSettings(port=0, key=Secret(LOCAL_KEY)))
    async with proxy(settings) as app:
        port = str(port_of(app.urls[0]))
        env = pointed_at(sandbox.url, SLPROXY_LISTEN__PORT=port, SLPROXY_LISTEN__KEY=LOCAL_KEY, BROWSER=str(command))
        code, out, err = await run_here("inspect", home=tmp_path, env=env)
        await until(lambda: handed.exists() and handed.read_text().endswith("\n"))
    assert (code, out) == (0, "")
    assert handed.read_text() == f"http://127.0.0.1:{port}/_slproxy/\n"
    assert f"Opened http://127.0.0.1:{port}/_slproxy/" in err
    assert "password" in err
    assert LOCAL_KEY not in out + err


async def test_a_browser_that_cannot_be_opened_is_told_with_the_address(sandbox: Sandbox, tmp_path: Path) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        env = pointed_at(sandbox.url, SLPROXY_LISTEN__PORT=str(port_of(app.urls[0])), BROWSER="/nonexistent")
        code, out, err = await run_here("inspect", home=tmp_path, env=env)
    assert (code, err) == (0, "The browser could not be opened.\n")
    assert out == f"{app.urls[0]}/_slproxy/\n"


@pytest.mark.parametrize("case", ["nobody", "off", "another key"])
async def test_it_says_why_there_is_none(case: str, sandbox: Sandbox, tmp_path: Path) -> None:
    key = Secret(LOCAL_KEY) if case == "another key" else None
    settings = replace(
        settings_for(sandbox.url),
        inspect=InspectSettings(enabled=case != "off"),
        listen=ListenSettings(port=0, key=key),
    )
    async with proxy(settings) as app:
        port = free_port() if case == "nobody" else port_of(app.urls[0])
        env = pointed_at(sandbox.url, SLPROXY_LISTEN__PORT=str(port))
        code, out, err = await run_here("inspect", home=tmp_path, env=env)
    assert (code, out) == (1, "")
    told = {"nobody": "slproxy serve", "off": "inspect.enabled = true", "another key": "with another local key"}
    assert told[case] in err


async def test_serve_says_its_address_unless_it_is_off(sandbox: Sandbox, tmp_path: Path) -> None:
    env = pointed_at(sandbox.url, SALESLOFT_API_KEY=sandbox.options.api_key)
    async with program("serve", home=tmp_path, env=env) as server:
        assert f"  Inspector: {server.url}/_slproxy/" in server.output
    async with program("serve", home=tmp_path, env={**env, "SLPROXY_INSPECT__ENABLED": "false"}) as server:
        assert "Inspector:" not in server.output
