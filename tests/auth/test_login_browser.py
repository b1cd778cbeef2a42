"""A login in a real browser: what the person sees, what the address bar keeps, and what becomes of the one before."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import os
import pty
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

import pytest
from aiohttp import ClientSession

from slproxy.sandbox import Sandbox
from tests.support import chromium
from tests.support.chromium import Tab, new_tab
from tests.support.commands import (
    SECRET,
    Interactive,
    allowed,
    at_a_terminal,
    free_port,
    interactive,
    log_in,
    logged_in,
    no_secret_in,
    oauth,
    sandboxed,
    token_file,
)
from tests.support.programs import run, spawn
from tests.support.raw_http import Message, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import PATIENCE, SOON, until

pytestmark = pytest.mark.heavy

# None of this machine: the person opens the address that is printed.
NO_BROWSER = "/nonexistent"


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    if chromium.BINARY is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with chromium.running() as address:
        yield address


# What the browser shows.


@dataclass(frozen=True)
class Shown:
    """A page as the browser has it, and what it keeps of the way there."""

    href: str
    text: str
    html: str
    referrer: str
    # What it loaded, or points at, besides itself and the icon that a browser asks for unasked.
    others: list[str]
    history: list[str]


async def shown_in(tab: Tab) -> Shown:
    facts = await tab.run(
        "return [location.href, document.body.innerText, document.documentElement.outerHTML, document.referrer,"
        " [...performance.getEntriesByType('resource').map(each => each.name),"
        "  ...[...document.querySelectorAll('[src], [href], [action]')].map(each => each.outerHTML)]]"
    )
    assert isinstance(facts, list)
    entries = (await tab.call("Page.getNavigationHistory"))["entries"]
    assert isinstance(entries, list)
    href, text, source, referrer, others = facts
    history = [entry["url"] for entry in entries]
    others = [each for each in others if each != f"{urlsplit(href).scheme}://{urlsplit(href).netloc}/favicon.ico"]
    return Shown(href=href, text=text, html=source, referrer=referrer, others=others, history=history)


async def click(tab: Tab, button: str) -> None:
    """Click on a button as a person does, by its place on the screen, and wait for the page that follows."""
    found = await tab.run(
        f"const {{x, y, width, height}} = [...document.querySelectorAll('button')]"
        f".find(each => each.textContent == {json.dumps(button)}).getBoundingClientRect();"
        "return [x + width / 2, y + height / 2]"
    )
    assert isinstance(found, list)
    loads = tab.loads
    for kind in ("mousePressed", "mouseReleased"):
        await tab.call("Input.dispatchMouseEvent", type=kind, x=found[0], y=found[1], button="left", clickCount=1)
    await until(lambda: tab.loads > loads)


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def callback_of(url: str, **fields: str) -> str:
    """Return the redirect URI of an authorize URL, with these fields."""
    return f"{query_of(url)['redirect_uri']}?{urlencode(fields)}"


def secrets_of(sandbox: Sandbox, url: str, home: Path) -> tuple[str, ...]:
    """Return all that a login had to keep to itself."""
    forms = [request.form for request in sandbox.token_requests]
    sent = [form[name] for form in forms for name in ("code", "code_verifier") if name in form]
    path = token_file(home)
    kept = json.loads(path.read_text()) if path.exists() else {}
    tokens = [kept[name] for name in ("access_token", "refresh_token") if name in kept]
    return (SECRET, query_of(url)["state"], *sent, *tokens)


def check_the_page(page: Shown, secrets: tuple[str, ...]) -> None:
    """Hold a page of ours to what each of them promises."""
    assert "?" not in page.href
    assert "#" not in page.href
    assert page.others == []
    # The page before it is SalesLoft's, whose address has the state.
    kept = [entry for entry in page.history if "/oauth/authorize" not in entry]
    no_secret_in(page.href, page.text, page.html, page.referrer, *kept, secrets=secrets)
    # The secrets that are written otherwise in HTML, too.
    no_secret_in(html.unescape(page.html), secrets=secrets)
    assert page.history[-1] == page.href


async def check_the_look(tab: Tab) -> None:
    """Hold a page of ours to fit a phone, and to be dark where the person wants that."""
    await tab.call("Emulation.setDeviceMetricsOverride", width=375, height=667, deviceScaleFactor=1, mobile=True)
    colours = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await tab.call("Emulation.setEmulatedMedia", features=[feature])
        looks = await tab.run(
            "const card = document.querySelector('main').getBoundingClientRect();"
            "return [document.documentElement.scrollWidth, card.left, 375 - card.right,"
            " ...[document.body, document.querySelector('p')].map(each => getComputedStyle(each)"
            "  [each == document.body ? 'backgroundColor' : 'color'].match(/\\d+/g).map(Number)[0])]"
        )
        assert isinstance(looks, list)
        assert looks[0] == 375
        assert min(looks[1:3]) >= 10
        colours.append(looks[3:])
    (light, ink), (dark, chalk) = colours
    assert light - ink > 100
    assert chalk - dark > 100


async def test_after_a_login_the_page_says_who_it_is_and_keeps_nothing(browser: str, tmp_path: Path) -> None:
    async with sandboxed() as sandbox, new_tab(browser) as tab:
        browser_command, handed = tmp_path / "browser", tmp_path / "handed"
        browser_command.write_text(f'#!/bin/sh\necho "$1" >{handed}\n')
        browser_command.chmod(0o755)
        env = oauth(sandbox, BROWSER=str(browser_command))
        async with interactive("login", home=tmp_path, env=env) as login:
            url = await login.url()
            await until(lambda: handed.exists() and handed.read_text().endswith("\n"))
            await tab.open(handed.read_text().strip())
            assert await tab.run("return location.href") == url
            await click(tab, "Allow")
            page = await shown_in(tab)
            await check_the_look(tab)
            assert await login.end() == 0, login.err
        secrets = secrets_of(sandbox, url, tmp_path)
        assert len(set(secrets)) == 6
        check_the_page(page, secrets)
        assert page.href == env["SALESLOFT_REDIRECT_URI"]
        assert "Logged in" in page.text
        assert "Jane Smith (jane@company.com)" in page.text
        assert login.out == "Authenticated as: Jane Smith (jane@company.com)\n"
        assert url in login.err
        # The state is in the address that was printed, and nowhere else.
        no_secret_in(login.out, login.err.replace(url, ""), secrets=secrets)


async def test_whoever_denies_is_told_so_in_both_places_and_the_earlier_login_stays(
    browser: str, tmp_path: Path
) -> None:
    async with sandboxed() as sandbox, new_tab(browser) as tab:
        await logged_in(tmp_path, sandbox)
        before = token_file(tmp_path).read_bytes()
        env = oauth(sandbox, BROWSER=NO_BROWSER)
        async with interactive("login", home=tmp_path, env=env) as login:
            url = await login.url()
            await tab.open(url)
            await click(tab, "Deny")
            page = await shown_in(tab)
            assert await login.end() == 1
        check_the_page(page, secrets_of(sandbox, url, tmp_path))
        assert sandbox.token_requests == []
    for said in (page.text, login.err):
        assert "denied" in said
    assert "Logged in" not in page.text
    assert token_file(tmp_path).read_bytes() == before


async def test_a_foreign_callback_keeps_nothing_in_the_address_bar_and_the_true_one_still_works(
    browser: str, tmp_path: Path
) -> None:
    async with sandboxed() as sandbox, new_tab(browser) as tab:
        env = oauth(sandbox, BROWSER=NO_BROWSER)
        async with interactive("login", home=tmp_path, env=env) as login:
            url = await login.url()
            for fields in ({"code": "planted-code", "state": "planted-state"}, {"code": "planted-code"}):
                await tab.open(callback_of(url, **fields))
                page = await shown_in(tab)
                check_the_page(page, ("planted-code", "planted-state", *secrets_of(sandbox, url, tmp_path)))
                assert "does not belong to this login" in page.text
                assert not token_file(tmp_path).exists()
            await tab.open(url)
            await click(tab, "Allow")
            assert "Jane Smith" in (await shown_in(tab)).text
            assert await login.end() == 0, login.err
        assert len(sandbox.token_requests) == 1
    assert token_file(tmp_path).exists()


async def test_a_callback_that_is_opened_twice_says_so_and_the_first_stands(browser: str, tmp_path: Path) -> None:
    async with sandboxed() as sandbox, new_tab(browser) as tab, new_tab(browser) as other:
        sandbox.fault("slow=1", on="token")
        env = oauth(sandbox, BROWSER=NO_BROWSER)
        async with interactive("login", home=tmp_path, env=env) as login:
            callback = await allowed(url := await login.url())
            first = asyncio.create_task(tab.open(callback))
            await until(lambda: len(sandbox.token_requests) == 1)
            await other.open(callback)
            again = await shown_in(other)
            assert not first.done()
            await first
            page = await shown_in(tab)
            assert await login.end() == 0, login.err
        secrets = secrets_of(sandbox, url, tmp_path)
        check_the_page(again, secrets)
        check_the_page(page, secrets)
        assert len(sandbox.token_requests) == 1
        assert sandbox.alive() == 1
    assert "Already used" in again.text
    assert "Jane Smith" in page.text


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:{}/after/login",
        "http://localhost:{}",
        "http://localhost:{}/a%20b",
        "http://localhost:{}/?app=1",
    ],
    ids=["another path", "no path", "an escape in the path", "a query"],
)
async def test_another_registered_redirect_uri_works(browser: str, tmp_path: Path, uri: str) -> None:
    uri = uri.format(free_port())
    async with sandboxed(redirect_uris=(uri,)) as sandbox, new_tab(browser) as tab:
        env = oauth(sandbox, BROWSER=NO_BROWSER) | {"SALESLOFT_REDIRECT_URI": uri}
        async with interactive("login", home=tmp_path, env=env) as login:
            url = await login.url()
            await tab.open(url)
            await click(tab, "Allow")
            page = await shown_in(tab)
            assert "Jane Smith" in page.text
            assert await login.end() == 0, login.err
        check_the_page(page, secrets_of(sandbox, url, tmp_path))


async def test_what_is_given_up_in_the_terminal_is_given_up_in_the_browser(browser: str, tmp_path: Path) -> None:
    async with sandboxed() as sandbox, new_tab(browser) as tab:
        await logged_in(tmp_path, sandbox)
        before = token_file(tmp_path).read_bytes()
        sandbox.fault("slow-before=9", on="token")
        env = oauth(sandbox, BROWSER=NO_BROWSER)
        async with interactive("login", home=tmp_path, env=env) as login:
            callback = await allowed(url := await login.url())
            waiting = asyncio.create_task(tab.open(callback))
            await until(lambda: len(sandbox.token_requests) == 1)
            login.process.send_signal(signal.SIGINT)
            assert await login.end() == 128 + signal.SIGINT
            await waiting
            page = await shown_in(tab)
        check_the_page(page, secrets_of(sandbox, url, tmp_path))
    assert "cancelled in the terminal" in page.text
    assert token_file(tmp_path).read_bytes() == before
    assert "Traceback" not in login.err


# What needs no browser to be seen.


async def test_ctrl_c_while_the_browser_is_out_leaves_the_earlier_login_and_frees_the_port(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        before = token_file(tmp_path).read_bytes()
        env = oauth(sandbox, BROWSER=NO_BROWSER)
        port = urlsplit(env["SALESLOFT_REDIRECT_URI"]).port
        async with interactive("login", home=tmp_path, env=env) as login:
            await login.url()
            with pytest.raises(OSError, match="in use"), socket.socket() as taken:
                taken.bind(("127.0.0.1", port))
            started = time.monotonic()
            login.process.send_signal(signal.SIGINT)
            assert await login.end() == 128 + signal.SIGINT
            assert time.monotonic() - started < SOON
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))
        assert sandbox.token_requests == []
        assert sandbox.alive() == 1
    assert token_file(tmp_path).read_bytes() == before
    assert "Traceback" not in login.err


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_callback_port_that_is_busy_is_told_with_the_ways_on(tmp_path: Path, address: str) -> None:
    with contextlib.ExitStack() as stack:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        taken = stack.enter_context(socket.socket(family))
        try:
            taken.bind((address, 0))
        except OSError:
            pytest.skip(f"this machine has no {address}")
        taken.listen()
        port = taken.getsockname()[1]
        async with sandboxed() as sandbox:
            env = oauth(sandbox, BROWSER=NO_BROWSER) | {"SALESLOFT_REDIRECT_URI": f"http://localhost:{port}/callback"}
            await logged_in(tmp_path, sandbox)
            before = token_file(tmp_path).read_bytes()
            async with interactive("login", home=tmp_path, env=env) as login:
                assert await login.end() == 2
    for way_on in (f":{port}", "in use", "SALESLOFT_REDIRECT_URI", "--no-browser"):
        assert way_on in login.err
    assert "Traceback" not in login.err
    assert login.out == ""
    assert token_file(tmp_path).read_bytes() == before


async def test_a_bare_code_can_be_pasted(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        async with interactive("login", "--no-browser", home=tmp_path, env=oauth(sandbox)) as login:
            code = query_of(await allowed(await login.url()))["code"]
            assert await login.end(f"  {code}\n") == 0, login.err
        assert login.out == "Authenticated as: Jane Smith (jane@company.com)\n"
        no_secret_in(login.out, login.err, secrets=(SECRET, code))


NOT_IT = "That is not the URL you were redirected to; it starts with http://localhost:"


async def test_at_a_terminal_a_person_who_pastes_another_thing_is_told_why_and_asked_again(tmp_path: Path) -> None:
    async with sandboxed() as sandbox, at_a_terminal("login", "--no-browser", home=tmp_path, env=oauth(sandbox)) as at:
        right = await allowed(url := await at.login.url())
        old = right.replace(query_of(url)["state"], "of-an-older-tab")
        for wrong, said in ((url, NOT_IT), ("no", NOT_IT), (old, "belongs to another login"), (right[:60], "whole")):
            await at.type(wrong + "\n")
            await at.until_said(said)
            await at.until_said("Paste it again:")
        await at.type(right[60:] + "\n")
        assert await at.login.end() == 0, at.login.err
    assert at.login.out == "Authenticated as: Jane Smith (jane@company.com)\n"


async def test_without_a_terminal_what_is_not_the_address_ends_the_login(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        async with interactive("login", "--no-browser", home=tmp_path, env=oauth(sandbox)) as login:
            await login.url()
            assert await login.end("no\n") == 1
        assert sandbox.token_requests == []
    assert login.err.count(NOT_IT) == 1
    assert not token_file(tmp_path).exists()


async def test_a_code_that_was_used_is_refused_and_the_earlier_login_stays_and_lives(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        before = token_file(tmp_path).read_bytes()
        async with interactive("login", "--no-browser", home=tmp_path, env=env) as login:
            url = await login.url()
            # Who can leave the challenge out of the address gets a code that any verifier fits, and is first with it.
            parts = urlsplit(url)
            fields = [each for each in parse_qsl(parts.query) if not each[0].startswith("code_challenge")]
            callback = await allowed(urlunsplit(parts._replace(query=urlencode(fields))))
            form = {
                "grant_type": "authorization_code",
                "client_id": sandbox.options.client_id,
                "client_secret": SECRET,
                "redirect_uri": query_of(url)["redirect_uri"],
                "code": query_of(callback)["code"],
            }
            async with ClientSession() as thief, thief.post(f"{sandbox.url}/oauth/token", data=form) as answer:
                assert answer.status == 200
            assert await login.end(callback + "\n") == 1
        assert [request.status for request in sandbox.token_requests] == [200, 400]
        assert "used before" in login.err
        assert token_file(tmp_path).read_bytes() == before
        # Alone: what the thief got was revoked (RFC 6749 §4.1.2).
        assert sandbox.alive() == 1
        code, _, err = await run("whoami", home=tmp_path, env=env)
        assert code == 0, err
        no_secret_in(login.out, login.err, secrets=(SECRET, form["code"]))


# Who it is.


@dataclass
class People:
    """An API that says of any token that it belongs to whoever is at the keyboard."""

    user: int = 1
    team: int | None = 7
    status: str = "200 OK"
    names: Mapping[int, str] = field(default_factory=lambda: {1: "Jane Smith", 2: "John <b>Doe</b>"})

    async def script(self, message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        team = None if self.team is None else {"id": self.team, "name": "Company Inc."}
        me = {"id": self.user, "name": self.names[self.user], "email": f"{self.user}@company.com", "team": team}
        writer.write(reply(self.status, json.dumps({"data": me}).encode()))


@dataclass
class Desk:
    """A home in which person 1 of team 7 has logged in."""

    home: Path
    sandbox: Sandbox
    people: People
    env: Mapping[str, str]
    before: bytes

    @property
    def kept(self) -> dict[str, object]:
        document = json.loads(token_file(self.home).read_text())
        assert isinstance(document, dict)
        return document

    def check_that_nothing_was_replaced(self) -> None:
        """The earlier login is as it was, and alive; the new one lives nowhere, here or at SalesLoft."""
        assert token_file(self.home).read_bytes() == self.before
        assert sum(request.status == 200 for request in self.sandbox.token_requests) == 2
        assert self.sandbox.alive() == 1
        assert self.sandbox.accepts(str(self.kept["access_token"]))

    def check_that_it_was_replaced(self, user: int, team: int) -> None:
        earlier = json.loads(self.before)
        kept = self.kept
        assert (kept["user_id"], kept["team_id"]) == (user, team)
        assert kept["access_token"] != earlier["access_token"]
        assert kept["login"] > earlier["login"]
        assert self.sandbox.accepts(str(kept["access_token"]))


@asynccontextmanager
async def desk(home: Path) -> AsyncIterator[Desk]:
    people = People()
    async with sandboxed() as sandbox, ScriptedUpstream(people.script) as api:
        env = oauth(sandbox, BROWSER=NO_BROWSER) | {"SLPROXY_UPSTREAM__API_URL": api.url}
        await log_in(home, env)
        yield Desk(home, sandbox, people, env, token_file(home).read_bytes())


async def test_a_login_keeps_who_it_is(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        assert (at.kept["user_id"], at.kept["team_id"]) == (1, 7)


async def test_who_logs_in_again_is_not_asked(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        login = await log_in(tmp_path, at.env)
        at.check_that_it_was_replaced(1, 7)
    assert "--replace" not in login.err
    assert "[y/N]" not in login.err


@pytest.mark.parametrize(("user", "team"), [(2, 7), (1, 8), (2, 8)], ids=["user", "team", "both"])
async def test_somebody_else_is_refused_where_nobody_can_be_asked(tmp_path: Path, user: int, team: int) -> None:
    async with desk(tmp_path) as at:
        at.people.user, at.people.team = user, team
        async with interactive("login", "--no-browser", home=tmp_path, env=at.env) as login:
            assert await login.end(await allowed(await login.url()) + "\ny\n") == 1
        at.check_that_nothing_was_replaced()
    assert login.out == ""
    assert "--replace" in login.err
    assert "[y/N]" not in login.err
    assert "Traceback" not in login.err


async def test_somebody_else_is_told_so_in_the_browser_too(browser: str, tmp_path: Path) -> None:
    async with desk(tmp_path) as at, new_tab(browser) as tab:
        at.people.user = 2
        async with interactive("login", home=tmp_path, env=at.env) as login:
            url = await login.url()
            await tab.open(url)
            await click(tab, "Allow")
            page = await shown_in(tab)
            assert await login.end() == 1
        at.check_that_nothing_was_replaced()
        check_the_page(page, secrets_of(at.sandbox, url, tmp_path))
    assert "Not logged in" in page.text
    assert "another user" in page.text
    # A name is text, whatever is in it.
    assert "John <b>Doe</b>" in page.text
    assert "Jane" not in page.text


async def test_somebody_else_replaces_the_login_who_says_so(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.people.user, at.people.team = 2, 8
        login = await log_in(tmp_path, at.env, "--replace")
        at.check_that_it_was_replaced(2, 8)
    assert login.out == "Authenticated as: John <b>Doe</b> (2@company.com)\n"


async def test_in_another_profile_anybody_may_log_in(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        at.people.user = 2
        await log_in(tmp_path, at.env, "--profile", "other")
        assert token_file(tmp_path).read_bytes() == at.before
        assert json.loads(token_file(tmp_path, "other").read_text())["user_id"] == 2
        assert at.sandbox.alive() == 2


async def log_in_at_a_terminal(at: Desk, answer: str | signal.Signals) -> tuple[int, str]:
    """Log in with a terminal as standard input, paste the address, and give an answer when one is asked for."""
    master, slave = pty.openpty()
    try:
        process = await spawn(["login", "--no-browser"], at.home, at.env, stdin=slave)
        os.close(slave)
        login = Interactive(process)
        assert process.stderr is not None
        try:
            async with asyncio.timeout(PATIENCE):
                os.write(master, (await allowed(await login.url()) + "\n").encode())
                login.err += (await process.stderr.readuntil(b"[y/N]")).decode()
                if isinstance(answer, signal.Signals):
                    process.send_signal(answer)
                else:
                    os.write(master, answer.encode())
                code = await login.end()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
    finally:
        os.close(master)
    assert "Traceback" not in login.err
    return code, login.out + login.err


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
async def test_at_a_terminal_the_person_is_asked_and_may_say_yes(tmp_path: Path, answer: str) -> None:
    async with desk(tmp_path) as at:
        at.people.user, at.people.team = 2, 8
        code, said = await log_in_at_a_terminal(at, answer)
        assert code == 0, said
        at.check_that_it_was_replaced(2, 8)
    assert re.search(r"John <b>Doe</b>.*\[y/N\]", said, re.DOTALL)


@pytest.mark.parametrize("answer", ["n\n", "\n", "yet\n", "\x04", signal.SIGINT], ids=repr)
async def test_at_a_terminal_anything_else_is_a_no(tmp_path: Path, answer: str | signal.Signals) -> None:
    async with desk(tmp_path) as at:
        at.people.user = 2
        code, said = await log_in_at_a_terminal(at, answer)
        assert code == (1 if isinstance(answer, str) else 128 + answer), said
        at.check_that_nothing_was_replaced()
