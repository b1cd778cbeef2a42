"""The ways of a login: what a browser is handed, and what happens where there is none."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import termios
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from slproxy.cli.browser import browser_environment, can_open
from tests.support.commands import SECRET, allowed, at_a_terminal, interactive, oauth, sandboxed, token_file
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.heavy

WHO = "Authenticated as: Jane Smith (jane@company.com)\n"
# The longest line that a terminal hands over when it does so by lines: termios(3).
CANONICAL = 4095


def recording(home: Path) -> tuple[str, Path]:
    """Return a browser that writes down what it was given and what every user could read of it, and its record."""
    record, script = home / "record.json", home / "browser"
    script.write_text(
        f"#!{sys.executable}\n"
        "import glob, json, os, sys\n"
        "lines = []\n"
        "for path in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "    try:\n"
        "        lines.append(open(path, 'rb').read().decode('latin-1'))\n"
        "    except OSError:\n"
        "        pass\n"
        f"with open({str(record)!r} + '.new', 'w') as file:\n"
        "    json.dump([sys.argv, dict(os.environ), lines], file)\n"
        f"os.rename({str(record)!r} + '.new', {str(record)!r})\n"
    )
    script.chmod(0o755)
    return str(script), record


async def test_a_browser_is_handed_nothing_that_is_secret(tmp_path: Path) -> None:
    browser, record = recording(tmp_path)
    async with sandboxed() as sandbox:
        env = oauth(sandbox, BROWSER=browser, SLPROXY_STORE__KEY="the-key-of-the-store", GITHUB_TOKEN="a-token")
        async with interactive("login", home=tmp_path, env=env) as login:
            url = await login.url()
            await until(record.exists)
            arguments, environment, lines = json.loads(record.read_text())
            assert await login.end(await allowed(url) + "\n") == 0, login.err
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    told = "\n".join([*arguments, *environment.values(), *lines])
    for secret in (query["state"], query["code_challenge"], SECRET, "the-key-of-the-store", "a-token"):
        assert secret not in told
    assert arguments[1].startswith(query["redirect_uri"].removesuffix("callback"))
    assert not [name for name in environment if name.startswith(("SALESLOFT_", "SLPROXY_"))]
    assert environment["HOME"] == str(tmp_path)


def test_only_what_is_secret_is_kept_from_a_browser() -> None:
    kept = {
        "DISPLAY": ":0",
        "XAUTHORITY": "/x",
        "DBUS_SESSION_BUS_ADDRESS": "unix:",
        "HTTPS_PROXY": "http://p",
        "PATH": "",
    }
    secret = dict.fromkeys(
        ["SALESLOFT_CLIENT_SECRET", "SLPROXY_CLIENT__A__KEY", "slproxy_x", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"],
        "x",
    )
    assert browser_environment({**kept, **secret, "TERM": "xterm"}) == kept


@pytest.mark.parametrize(
    ("environment", "platform", "opens"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"SSH_CONNECTION": "x"}, "linux", False),
        ({"SSH_CONNECTION": "x", "DISPLAY": "localhost:10.0"}, "linux", True),
        ({"SSH_CONNECTION": "x", "BROWSER": "/usr/bin/code-browser"}, "linux", True),
        ({}, "darwin", True),
        ({"SSH_CONNECTION": "x"}, "darwin", False),
        ({"SSH_TTY": "x"}, "win32", False),
        ({}, "win32", True),
    ],
)
def test_a_browser_is_opened_only_where_the_person_sees_it(
    environment: dict[str, str], platform: str, opens: bool
) -> None:
    assert can_open(environment, platform) == opens


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "No browser can be opened here."),
        ({"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}, "No browser can be opened here."),
        ({"BROWSER": "/bin/false"}, "The browser could not be opened."),
        ({"BROWSER": "/nonexistent"}, "The browser could not be opened."),
    ],
    ids=["no display", "over SSH", "a browser that fails", "a browser that is not there"],
)
async def test_without_a_browser_the_paste_is_offered_in_the_same_run(
    tmp_path: Path, more: dict[str, str], said: str
) -> None:
    async with sandboxed() as sandbox, at_a_terminal("login", home=tmp_path, env=oauth(sandbox, **more)) as at:
        url = await at.login.url()
        await at.until_said("paste the URL you were redirected to")
        if said not in at.login.err:
            await at.until_said(said)
        await at.type(await allowed(url) + "\n")
        assert await at.login.end() == 0, at.login.err
        assert at.login.out == WHO


async def test_a_browser_that_hangs_or_says_nothing_is_no_reason_to_wait(tmp_path: Path) -> None:
    for number, browser in enumerate(("/bin/true", "sleep 300 %s")):
        home = tmp_path / str(number)
        home.mkdir()
        async with sandboxed() as sandbox:
            started = time.monotonic()
            async with interactive("login", home=home, env=oauth(sandbox, BROWSER=browser)) as login:
                assert await login.end(await allowed(await login.url()) + "\n") == 0, login.err
            assert "paste the URL" in login.err
            assert time.monotonic() - started < PATIENCE


async def test_without_input_the_browser_is_still_waited_for_and_that_is_said(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        async with interactive("login", home=tmp_path, env=env) as login:
            url = await login.url()
            assert login.process.stdin is not None
            login.process.stdin.close()
            assert login.process.stderr is not None
            while "Standard input has ended" not in login.err:
                login.err += (await login.process.stderr.readline()).decode()
            reader, writer = await asyncio.open_connection("localhost", urlsplit(env["SALESLOFT_REDIRECT_URI"]).port)
            writer.write(f"GET {(await allowed(url)).partition('localhost')[2].partition('/')[2].join('/ ')}".encode())
            writer.write(b"HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"Jane Smith" in await reader.read()
            writer.close()
            assert await login.process.wait() == 0


@pytest.mark.parametrize("mode", [[], ["--no-browser"]], ids=["with a browser", "without"])
async def test_a_line_longer_than_a_terminal_s_own_arrives_whole(tmp_path: Path, mode: list[str]) -> None:
    async with sandboxed() as sandbox, at_a_terminal("login", *mode, home=tmp_path, env=oauth(sandbox)) as at:
        before = termios.tcgetattr(at.terminal)
        location = await allowed(await at.login.url())
        base, _, query = location.partition("?")
        await at.type(f"{base}?scope={'x' * 2 * CANONICAL}&{query}\n")
        assert await at.login.end() == 0, at.login.err
        assert at.login.out == WHO
        assert termios.tcgetattr(at.terminal) == before


async def test_a_url_that_is_broken_into_lines_is_one_paste(tmp_path: Path) -> None:
    async with sandboxed() as sandbox, at_a_terminal("login", home=tmp_path, env=oauth(sandbox)) as at:
        location = await allowed(await at.login.url())
        await at.type("".join(f"{location[each : each + 40]}\r" for each in range(0, len(location), 40)))
        assert await at.login.end() == 0, at.login.err
        assert "again" not in at.login.err


async def test_a_terminal_that_somebody_has_made_non_blocking_is_waited_for(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        async with at_a_terminal("login", "--no-browser", home=tmp_path, env=env, blocking=False) as at:
            await at.type(await allowed(await at.login.url()) + "\n")
            assert await at.login.end() == 0, at.login.err


@pytest.mark.parametrize("typed", ["x\x7fy\x7f", "rubbish\x15"], ids=["backspace", "Ctrl-U"])
async def test_what_is_typed_may_be_taken_back(tmp_path: Path, typed: str) -> None:
    async with sandboxed() as sandbox, at_a_terminal("login", "--no-browser", home=tmp_path, env=oauth(sandbox)) as at:
        await at.type(f"{typed}{await allowed(await at.login.url())}\n")
        assert await at.login.end() == 0, at.login.err


@pytest.mark.parametrize("mode", [[], ["--no-browser"]], ids=["with a browser", "without"])
async def test_ctrl_c_gives_the_terminal_back_as_it_was(tmp_path: Path, mode: list[str]) -> None:
    async with sandboxed() as sandbox, at_a_terminal("login", *mode, home=tmp_path, env=oauth(sandbox)) as at:
        before = termios.tcgetattr(at.terminal)
        await at.login.url()
        await until(lambda: termios.tcgetattr(at.terminal) != before)
        at.login.process.send_signal(signal.SIGINT)
        assert await at.login.end() == 128 + signal.SIGINT
        assert termios.tcgetattr(at.terminal) == before
    assert "Traceback" not in at.login.err


async def test_the_end_of_input_at_a_terminal_ends_a_login_without_a_browser(tmp_path: Path) -> None:
    async with sandboxed() as sandbox, at_a_terminal("login", "--no-browser", home=tmp_path, env=oauth(sandbox)) as at:
        await at.login.url()
        await at.type("\x04")
        assert await at.login.end() == 1
    assert "Nothing was pasted." in at.login.err
    assert not token_file(tmp_path).exists()
