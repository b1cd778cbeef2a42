"""What ``slproxy doctor`` finds on a machine where one thing is wrong, or none, and what it says to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import os
import shlex
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

import slproxy
from slproxy.config import Secret
from slproxy.sandbox import Sandbox
from slproxy.store import FileStore, Record, TokenCipher
from tests.support.commands import KEY, SECRET, free_port, oauth, pointed_at, run_here, sandboxed, token_file
from tests.support.egress import CREDENTIALS, PASSWORD, USER, Connector
from tests.support.egress import answering as answering_always
from tests.support.listener import Listener
from tests.support.programs import environment, program
from tests.support.proxies import API_KEY
from tests.support.raw_http import Message, port_of, reply
from tests.support.sandboxes import login_at
from tests.support.scripted import Handler, ScriptedUpstream
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.heavy

ME = json.dumps({"data": {"id": 1, "team": {"id": 3}, "name": "Jane Smith", "email": "jane@company.com"}}).encode()
CHECKS = ("config", "permissions", "audit", "store", "proxy", "dns", "tls", "clock", "credentials", "users", "port")

Finding = dict[str, str]


async def diagnosis(home: Path, env: Mapping[str, str], *, code: int, hidden: tuple[str, ...] = ()) -> list[Finding]:
    """Run ``doctor --json`` and hold what it prints to what every diagnosis promises; return its findings."""
    exit_code, out, err = await run_here("doctor", "--json", home=home, env={"SLPROXY_RETRY__ATTEMPTS": "1", **env})
    assert "Traceback" not in err, err
    findings: list[Finding] = json.loads(out)
    for each in findings:
        assert set(each) == {"check", "state", "detail", "remedy"}, each
        assert each["check"] in CHECKS, each
        assert each["state"] in ("ok", "warning", "broken", "skipped"), each
        assert each["detail"], each
        assert each["remedy"] or each["state"] in ("ok", "skipped"), each
    assert exit_code == code, (out, err)
    assert (exit_code != 0) == any(each["state"] == "broken" for each in findings), out
    for secret in (SECRET, KEY, API_KEY, *hidden):
        assert secret not in out + err
    return findings


def of(check: str, findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each["check"] == check]


def states(check: str, findings: list[Finding]) -> list[str]:
    return [each["state"] for each in of(check, findings)]


def wrong(findings: list[Finding]) -> dict[str, Finding]:
    """Return what is not well, by its check."""
    return {each["check"]: each for each in findings if each["state"] in ("broken", "warning")}


def on_a_free_port(env: Mapping[str, str]) -> dict[str, str]:
    return {**env, "SLPROXY_LISTEN__PORT": str(free_port())}


@asynccontextmanager
async def well(home: Path, **changes: object) -> AsyncIterator[tuple[Sandbox, dict[str, str], Record]]:
    """A sandbox, settings that fit it, and a stored login: a machine on which nothing is wrong."""
    async with sandboxed() as sandbox:
        record = replace(login_at(sandbox), **changes)  # type: ignore[arg-type]
        await FileStore(token_file(home)).write(record)
        yield sandbox, on_a_free_port(oauth(sandbox)), record


def tokens_of(record: Record) -> tuple[str, ...]:
    assert record.token.refresh_token is not None
    return record.token.access_token, record.token.refresh_token


def answering(date: str | None = None) -> Handler:
    """Return an API that knows who asks, and whose clock says ``date``, or is right."""

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = email.utils.formatdate(usegmt=True) if date is None else date
        writer.write(reply("200 OK", ME, f"Date: {said}"))

    return script


# Nothing is wrong.


async def test_where_nothing_is_wrong_all_is_ok_and_the_exit_code_is_0(tmp_path: Path) -> None:
    async with well(tmp_path) as (_, env, record):
        all_of_it = {**env, "SLPROXY_LOG__AUDIT": str(tmp_path / "audit")}
        findings = await diagnosis(tmp_path, all_of_it, code=0, hidden=tokens_of(record))
        assert {each["state"] for each in findings} == {"ok"}, findings
        assert {each["check"] for each in findings} == set(CHECKS)
        for check in ("dns", "tls"):
            assert [each["detail"].partition(":")[0] for each in of(check, findings)] == ["api", "accounts"]
        assert "Jane Smith" in of("credentials", findings)[0]["detail"]
        assert "without TLS" in of("tls", findings)[0]["detail"]
        told = await run_here("doctor", home=tmp_path, env=all_of_it)
        assert (told[0], told[2]) == (0, "")
        assert [line.split()[:2] for line in told[1].splitlines()] == [[e["state"], e["check"]] for e in findings]


async def test_every_line_of_what_is_wrong_is_followed_by_its_remedy(tmp_path: Path) -> None:
    async with well(tmp_path) as (_, env, _):
        path = token_file(tmp_path)
        path.chmod(0o644)
        code, out, _ = await run_here("doctor", home=tmp_path, env=env)
    assert code == 1
    lines = out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("broken   store")]
    assert lines[at + 1].split("-> ")[1] == f"Repair it: chmod 600 {path}"


# Settings.


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[listen]\nprot = 1\n", ["listen.prot", "slproxy.toml:2", "port"]),
        ("[listen\n", ["slproxy.toml"]),
        ("[listen]\nprot = 1\nhost = 5\n", ["listen.prot", "listen.host"]),
    ],
    ids=["an unknown key", "no TOML", "two mistakes"],
)
async def test_settings_that_are_wrong_are_a_finding_and_exit_2_as_everywhere(
    tmp_path: Path, toml: str, said: list[str]
) -> None:
    (tmp_path / "slproxy.toml").write_text(toml)
    findings = await diagnosis(tmp_path, {"SALESLOFT_API_KEY": KEY}, code=2)
    assert [each["check"] for each in findings] == ["config"]
    for words in said:
        assert words in findings[0]["detail"] + findings[0]["remedy"]


# Files.


@pytest.mark.parametrize("harm", ["file", "folder"])
async def test_a_token_that_is_open_to_others_comes_with_the_command_that_repairs_it(tmp_path: Path, harm: str) -> None:
    async with well(tmp_path) as (_, env, record):
        path = token_file(tmp_path)
        (path if harm == "file" else path.parent).chmod(0o666 if harm == "file" else 0o777)
        findings = await diagnosis(tmp_path, env, code=1, hidden=tokens_of(record))
        assert states("store", findings) == ["broken"]
        command = shlex.split(of("store", findings)[0]["remedy"].partition("Repair it: ")[2])
        assert command[0] == "chmod"
        repair = await asyncio.create_subprocess_exec(*command)
        assert await repair.wait() == 0
        findings = await diagnosis(tmp_path, env, code=0, hidden=tokens_of(record))
        assert states("store", findings) == ["ok"]


async def test_a_store_that_is_broken_does_not_keep_the_hosts_and_the_clock_from_being_looked_at(
    tmp_path: Path,
) -> None:
    async with well(tmp_path) as (_, env, _):
        token_file(tmp_path).chmod(0o644)
        findings = await diagnosis(tmp_path, env, code=1)
    assert states("store", findings) == ["broken"]
    assert {check: states(check, findings) for check in ("dns", "tls", "clock", "port")} == {
        "dns": ["ok", "ok"],
        "tls": ["ok", "ok"],
        "clock": ["ok"],
        "port": ["ok"],
    }


@pytest.mark.parametrize("place", ["mounted", "client", ".env", "slproxy.toml"])
async def test_a_secret_that_others_can_read_is_a_warning_with_the_command_that_repairs_it(
    tmp_path: Path, place: str
) -> None:
    async with ScriptedUpstream(answering()) as upstream:
        env = on_a_free_port(pointed_at(upstream.url))
        path = tmp_path / ("it's a key" if place == "mounted" else place)
        match place:
            case "mounted":
                path.write_text(KEY)
                env["SALESLOFT_API_KEY_FILE"] = str(path)
            case "client":
                path.write_text("the-key-of-a-client-" * 2)
                env |= {"SALESLOFT_API_KEY": KEY, "SLPROXY_CLIENT__REPORT__KEY_FILE": str(path)}
            case ".env":
                path.write_text(f"SALESLOFT_API_KEY={KEY}\n")
            case _:
                path.write_text(f'[auth]\napi_key = "{KEY}"\n')
        path.chmod(0o644)
        findings = await diagnosis(tmp_path, env, code=0)
        assert list(wrong(findings)) == ["permissions"]
        (finding,) = of("permissions", findings)
        assert (finding["state"], str(path) in finding["detail"]) == ("warning", True)
        assert shlex.split(finding["remedy"])[-3:] == ["chmod", "600", str(path)]
        path.chmod(0o600)
        assert wrong(await diagnosis(tmp_path, env, code=0)) == {}


async def test_a_damaged_token_file_is_set_aside_and_told(tmp_path: Path) -> None:
    async with well(tmp_path) as (_, env, record):
        path = token_file(tmp_path)
        damaged = path.read_bytes()[:-40]
        path.write_bytes(damaged)
        findings = await diagnosis(tmp_path, env, code=1, hidden=tokens_of(record))
        (aside,) = path.parent.glob("default.json.aside-*")
    assert aside.read_bytes() == damaged
    assert states("store", findings) == ["broken"]
    assert str(aside) in of("store", findings)[0]["remedy"]


async def test_a_key_that_does_not_open_the_token_is_told_and_changes_nothing(tmp_path: Path) -> None:
    async with well(tmp_path) as (_, env, record):
        cipher = TokenCipher("key", key=Secret("right-phrase"), keyring=lambda: None)
        await FileStore(token_file(tmp_path), cipher).write(record)
        kept = token_file(tmp_path).read_bytes()
        locked = {**env, "SLPROXY_STORE__KEY": "wrong-phrase"}
        findings = await diagnosis(tmp_path, locked, code=1, hidden=("-phrase", *tokens_of(record)))
        assert states("store", findings) == ["broken"], findings
        assert token_file(tmp_path).read_bytes() == kept


# The hosts.


async def test_a_name_that_does_not_resolve_is_told_once_and_what_rests_on_it_is_skipped(tmp_path: Path) -> None:
    env = on_a_free_port(pointed_at("https://nothing.invalid", SALESLOFT_API_KEY=KEY))
    findings = await diagnosis(tmp_path, env, code=1)
    assert states("dns", findings) == ["broken", "broken"]
    assert "nothing.invalid" in of("dns", findings)[0]["detail"]
    assert states("tls", findings) == ["skipped", "skipped"]
    assert states("clock", findings) == ["skipped"]
    assert states("credentials", findings) == ["broken"]
    assert states("port", findings) == ["ok"]


@pytest.mark.parametrize("egress", [False, True], ids=["directly", "by a proxy"])
async def test_authorities_that_cannot_be_read_leave_no_check_without_a_line(egress: bool, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no PEM")
    more = {"SLPROXY_UPSTREAM__PROXY": "http://127.0.0.1:9"} if egress else {}
    env = pointed_at("https://nothing.invalid", SALESLOFT_API_KEY=KEY, SLPROXY_UPSTREAM__CA_FILE="ca.pem", **more)
    findings = await diagnosis(tmp_path, on_a_free_port(env), code=1)
    assert states("tls", findings) == ["broken"]
    assert states("proxy" if egress else "dns", findings) == ["skipped", "skipped"]
    assert states("clock", findings) == ["skipped"]
    assert states("proxy", findings) == (["skipped", "skipped"] if egress else ["ok"])


@contextlib.contextmanager
def behind_tls(authority: trustme.CA, name: str = "localhost") -> Iterator[str]:
    """An API behind TLS, in a thread of its own: what is tested is a process."""

    class Me(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(ME)))
            self.end_headers()
            self.wfile.write(ME)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
            """Nobody reads it."""

    class Quiet(HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A handshake that was broken off is what is tested."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    with Quiet(("127.0.0.1", 0), Me) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"https://{name}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("trusted", "state"), [(True, "ok"), (False, "broken")], ids=["a good certificate", "of an unknown authority"]
)
async def test_a_certificate_is_judged_and_a_bad_one_comes_with_what_to_set(
    tmp_path: Path, trusted: bool, state: str
) -> None:
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(file)
    with behind_tls(authority) as url:
        env = on_a_free_port(
            pointed_at(url, SALESLOFT_API_KEY=KEY, SLPROXY_UPSTREAM__CA_FILE=str(file)),
        )
        findings = await diagnosis(tmp_path, env, code=0 if state == "ok" else 1)
    assert states("dns", findings) == ["ok", "ok"]
    assert states("tls", findings) == [state, state]
    assert states("credentials", findings) == [state]
    if state == "ok":
        assert "certificate is valid" in of("tls", findings)[0]["detail"]
    else:
        assert "certificate" in of("tls", findings)[0]["detail"]


async def test_the_proxy_in_use_is_named_with_who_named_it_and_tried(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with behind_tls(authority, "api.test") as url, behind_tls(authority) as here:
        port = port_of(url)
        settings = pointed_at(url, SALESLOFT_API_KEY=KEY, SLPROXY_UPSTREAM__CA_FILE=str(tmp_path / "ca.pem"))
        env = on_a_free_port({**settings, "SLPROXY_UPSTREAM__ACCOUNTS_URL": here, "NO_PROXY": "other.test"})
        async with Connector({f"api.test:{port}": port}) as connector:
            env["HTTPS_PROXY"] = f"http://{USER}:{PASSWORD}@127.0.0.1:{connector.port}"
            findings = await diagnosis(tmp_path, env, code=0, hidden=(PASSWORD, CREDENTIALS))
        shown = f"http://***@127.0.0.1:{connector.port}"
        assert [each["detail"] for each in of("proxy", findings)] == [
            "accounts: reached directly, since it is this machine",
            f"api: by way of {shown} (env HTTPS_PROXY)",
        ]
        assert [each["detail"].partition(":")[0] for each in of("dns", findings)] == ["accounts"]
        assert "certificate is valid" in of("tls", findings)[0]["detail"]
        assert states("credentials", findings) == ["ok"]
        assert {*connector.asked} == {f"api.test:{port}"}
        # The proxy does not do its part.
        heads: list[bytes] = []
        async with Listener(answering_always(reply("407 No"), heads=heads)) as refusing:
            settings["SLPROXY_UPSTREAM__PROXY_FILE"] = str(mounted := tmp_path / "proxy")
            mounted.write_text(f"http://{USER}:{PASSWORD}@127.0.0.1:{refusing.port}")
            mounted.chmod(0o644)
            findings = await diagnosis(tmp_path, on_a_free_port(settings), code=1, hidden=(PASSWORD, CREDENTIALS))
        assert [
            (each["check"], each["state"]) for each in findings if each["check"] in ("proxy", "tls", "credentials")
        ] == [
            *[("proxy", "broken"), ("tls", "skipped")] * 2,
            ("credentials", "skipped"),
        ]
        assert str(mounted) in wrong(findings)["permissions"]["detail"]
        assert f"127.0.0.1:{refusing.port} refused the user name" in of("proxy", findings)[0]["detail"]
        assert "upstream.proxy" in of("proxy", findings)[0]["remedy"]
        assert len(heads) == 2, "one for each host, since a wrong password locks an account"


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({}, "no proxy is set"),
        ({"SLPROXY_UPSTREAM__PROXY": "off", "HTTPS_PROXY": "http://127.0.0.1:1"}, "upstream.proxy is off"),
        ({"HTTPS_PROXY": "http://127.0.0.1:1", "no_proxy": "invalid"}, "no_proxy names it"),
    ],
)
async def test_where_no_proxy_is_used_it_says_why(env: Mapping[str, str], why: str, tmp_path: Path) -> None:
    settings = on_a_free_port(pointed_at("https://nothing.invalid", SALESLOFT_API_KEY=KEY))
    findings = await diagnosis(tmp_path, {**settings, **env}, code=1)
    assert [each["detail"] for each in of("proxy", findings)] == [f"none is used: {why}"]
    assert "HTTPS_PROXY" in of("dns", findings)[0]["remedy"]


async def test_an_upstream_that_is_down_is_told_and_the_rest_is_looked_at_all_the_same(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        down = upstream.url
    env = on_a_free_port(pointed_at(down, SALESLOFT_API_KEY=KEY))
    findings = await diagnosis(tmp_path, env, code=1)
    assert {check: each["state"] for check, each in wrong(findings).items()} == {
        "tls": "broken",
        "credentials": "broken",
    }
    assert states("port", findings) == ["ok"]


async def test_an_accounts_host_that_is_down_is_told_apart_from_the_api(tmp_path: Path) -> None:
    async with ScriptedUpstream(answering()) as upstream:
        async with ScriptedUpstream() as accounts:
            down = accounts.url
        env = on_a_free_port(pointed_at(upstream.url, SALESLOFT_API_KEY=KEY, SLPROXY_UPSTREAM__ACCOUNTS_URL=down))
        findings = await diagnosis(tmp_path, env, code=1)
    assert states("tls", findings) == ["ok", "broken"]
    assert states("credentials", findings) == ["ok"]


# The clock.


CLOCKS = [
    (0, "ok", "agrees"),
    (-2, "ok", "agrees"),
    (-10, "warning", "ahead of"),
    (10, "warning", "behind"),
    (-600, "broken", "ahead of"),
    (600, "broken", "behind"),
]


async def test_a_clock_that_disagrees_with_the_upstream_is_told_with_its_direction(tmp_path: Path) -> None:
    async def examined(off: int, state: str) -> list[Finding]:
        async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answering(email.utils.formatdate(time.time() + off, usegmt=True))(message, reader, writer)

        async with ScriptedUpstream(script) as upstream:
            env = on_a_free_port(pointed_at(upstream.url, SALESLOFT_API_KEY=KEY))
            return await diagnosis(tmp_path, env, code=1 if state == "broken" else 0)

    # At the same time, for each is mostly the start of a process.
    results = await asyncio.gather(*(examined(off, state) for off, state, _ in CLOCKS))
    for (off, state, said), findings in zip(CLOCKS, results, strict=True):
        (clock,) = of("clock", findings)
        assert (clock["state"], said in clock["detail"]) == (state, True), (off, clock)
        assert set(wrong(findings)) == (set() if state == "ok" else {"clock"})
        if state != "ok":
            # How far off it is, as well as a Date of whole seconds and a busy machine tell it.
            (seconds,) = [int(word) for word in clock["detail"].split() if word.isdigit()]
            assert abs(off) - 3 <= seconds <= abs(off) + 1, clock


@pytest.mark.parametrize("date", ["yesterday", f"Sun, 29 Nov 2026 00:00:00 +{'9' * 20}"])
async def test_a_clock_that_cannot_be_compared_is_skipped(tmp_path: Path, date: str) -> None:
    async with ScriptedUpstream(answering(date)) as upstream:
        env = on_a_free_port(pointed_at(upstream.url, SALESLOFT_API_KEY=KEY))
        assert states("clock", await diagnosis(tmp_path, env, code=0)) == ["skipped"]


# The credentials.


async def test_credentials_that_salesloft_refuses_are_told_with_what_to_check(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        wrong_secret = {**oauth(sandbox), "SALESLOFT_CLIENT_SECRET": "marker-wrong"}
        del wrong_secret["SALESLOFT_REDIRECT_URI"]  # without one, id and secret are client credentials
        wrong_key = pointed_at(sandbox.url, SALESLOFT_API_KEY="ak_" + "00" * 32)
        for number, env in enumerate((wrong_secret, wrong_key)):
            home = tmp_path / str(number)
            home.mkdir()
            findings = await diagnosis(home, on_a_free_port(env), code=1, hidden=("marker-wrong", "ak_00"))
            assert list(wrong(findings)) == ["credentials"]
            remedy = of("credentials", findings)[0]["remedy"]
            assert ("SALESLOFT_CLIENT_SECRET", "SALESLOFT_API_KEY")[number] in remedy


async def test_credentials_that_are_not_there_are_told_with_how_to_get_them(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        findings = await diagnosis(tmp_path, on_a_free_port(oauth(sandbox)), code=1)
        assert list(wrong(findings)) == ["credentials"]
        assert "slproxy login" in of("credentials", findings)[0]["remedy"]
        assert "no login yet" in of("store", findings)[0]["detail"]


@pytest.mark.parametrize("how", ["refused before", "revoked at SalesLoft"])
async def test_a_login_that_is_dead_is_told_with_how_to_get_another(tmp_path: Path, how: str) -> None:
    async with well(tmp_path) as (sandbox, env, record):
        sandbox.revoke_all()
        if how == "refused before":
            token = replace(record.token, expires_at=time.time() - 1)
            await FileStore(token_file(tmp_path)).write(replace(record, refused="invalid_grant", token=token))
        findings = await diagnosis(tmp_path, env, code=1, hidden=tokens_of(record))
        assert list(wrong(findings)) == ["credentials"]
        assert "slproxy login" in of("credentials", findings)[0]["remedy"]
        if how == "refused before":
            assert sandbox.token_requests == []


async def test_a_token_that_has_expired_is_renewed_kept_and_no_finding(tmp_path: Path) -> None:
    async with well(tmp_path) as (sandbox, env, record):
        await FileStore(token_file(tmp_path)).write(
            replace(record, token=replace(record.token, expires_at=time.time() - 1))
        )
        assert wrong(await diagnosis(tmp_path, env, code=0, hidden=tokens_of(record))) == {}
        kept = await FileStore(token_file(tmp_path)).read()
        assert kept is not None
        assert (kept.generation, len(sandbox.token_requests)) == (record.generation + 1, 1)


# The port.


async def test_a_port_on_which_our_own_proxy_is_up_is_ok(tmp_path: Path) -> None:
    async with ScriptedUpstream(answering()) as upstream:
        env = on_a_free_port(pointed_at(upstream.url, SALESLOFT_API_KEY=KEY, SLPROXY_LISTEN__KEY="marker-local-key"))
        async with program("serve", home=tmp_path, env=env):
            findings = await diagnosis(tmp_path, env, code=0, hidden=("marker-local-key",))
            assert of("port", findings)[0]["detail"].startswith(f"slproxy {slproxy.__version__} is up at ")
            # Whoever has another key cannot tell it from another program.
            findings = await diagnosis(tmp_path, {**env, "SLPROXY_LISTEN__KEY": "another"}, code=1)
            assert list(wrong(findings)) == ["port"]


@pytest.mark.parametrize("program_there", ["that speaks HTTP", "that says nothing"])
async def test_a_port_of_another_program_is_told(tmp_path: Path, program_there: str) -> None:
    async with ScriptedUpstream(answering()) as upstream:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            speaks = program_there == "that speaks HTTP"
            port = upstream.url.rsplit(":", 1)[1] if speaks else str(silent.getsockname()[1])
            env = {**pointed_at(upstream.url, SALESLOFT_API_KEY=KEY), "SLPROXY_LISTEN__PORT": port}
            findings = await diagnosis(tmp_path, env, code=1)
    assert list(wrong(findings)) == ["port"]
    assert port in of("port", findings)[0]["detail"]
    assert "listen.port" in of("port", findings)[0]["remedy"]


async def test_a_unix_socket_is_looked_at_as_a_port_is(tmp_path: Path) -> None:
    async with ScriptedUpstream(answering()) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        del env["SLPROXY_LISTEN__PORT"]
        missing = await diagnosis(tmp_path, {**env, "SLPROXY_LISTEN__UDS": str(tmp_path / "no" / "s")}, code=1)
        assert list(wrong(missing)) == ["port"]
        env["SLPROXY_LISTEN__UDS"] = str(tmp_path / "s")
        async with program("serve", home=tmp_path, env=env):
            assert "is up at" in of("port", await diagnosis(tmp_path, env, code=0))[0]["detail"]
        # A program that ends by itself takes its socket along; one that is killed leaves it, and is in nobody's way.
        assert (tmp_path / "s").is_socket()
        assert "is free" in of("port", await diagnosis(tmp_path, env, code=0))[0]["detail"]


async def test_an_audit_that_cannot_be_written_would_stop_a_start(tmp_path: Path) -> None:
    async with ScriptedUpstream(answering()) as upstream:
        env = on_a_free_port(pointed_at(upstream.url, SALESLOFT_API_KEY=KEY))
        for name, code in (("audit", 0), ("none/audit", 1)):
            (found,) = of("audit", await diagnosis(tmp_path, env | {"SLPROXY_LOG__AUDIT": name}, code=code))
            assert (found["state"] == "ok") is (code == 0)
    assert "none/audit cannot be opened: No such file or directory." in str(found["detail"])
    assert found["remedy"]


async def test_a_metrics_port_that_is_taken_would_stop_a_start(tmp_path: Path) -> None:
    async with ScriptedUpstream(answering()) as upstream:
        env = on_a_free_port(pointed_at(upstream.url, SALESLOFT_API_KEY=KEY))
        env |= {"SLPROXY_METRICS__PORT": str(port_of(upstream.url))}
        port = wrong(await diagnosis(tmp_path, env, code=1))["port"]
    assert str(port["detail"]).startswith("metrics.port: 127.0.0.1:")
    assert "another metrics.port" in str(port["remedy"])


async def test_a_proxy_that_anyone_can_reach_without_a_key_is_a_warning(tmp_path: Path) -> None:
    async with ScriptedUpstream(answering()) as upstream:
        env = on_a_free_port(pointed_at(upstream.url, SALESLOFT_API_KEY=KEY))
        env |= {"SLPROXY_LISTEN__HOST": "0.0.0.0"}
        assert wrong(await diagnosis(tmp_path, env, code=1))["port"]["state"] == "broken"
        env |= {"SLPROXY_LISTEN__ALLOW_UNAUTHENTICATED": "true"}
        findings = await diagnosis(tmp_path, env, code=0)
        assert wrong(findings)["port"]["state"] == "warning"
        async with program("serve", home=tmp_path, env=env):
            findings = await diagnosis(tmp_path, env, code=0)
            assert wrong(findings)["port"]["state"] == "warning"


# What hangs.


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can give it a resolver")
async def test_a_resolver_that_never_answers_does_not_keep_it(tmp_path: Path) -> None:
    """It was kept for 71 s: getaddrinfo cannot be cancelled, and its thread was waited for at the end."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\noptions timeout:30 attempts:5\n")
    env = environment(tmp_path, **on_a_free_port({"SALESLOFT_API_KEY": KEY}))
    mounted = 'mount --bind resolv.conf /etc/resolv.conf && exec "$@"'
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        try:
            silent.bind(("127.0.0.53", 53))
        except OSError as error:
            pytest.skip(f"no name server can be put there: {error}")
        process = await asyncio.create_subprocess_exec(
            *("unshare", "-m", "sh", "-c", mounted, "sh", sys.executable, "-m", "slproxy", "doctor"),
            cwd=tmp_path,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        # The name server is asked when all is loaded: from then on time counts.
        silent.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_recv(silent, 512)
        began = time.monotonic()
        out, err = await process.communicate()
        lasted = time.monotonic() - began
    if b"unshare" in err or b"mount" in err:
        pytest.skip(err.decode())
    lines = out.decode().splitlines()
    assert [line for line in lines if line.startswith("broken   dns") and "no answer in 5 s" in line], out
    assert "skipped  credentials" in out.decode()
    assert "ok       port" in out.decode()
    assert (process.returncode, err, lasted < 9.0) == (1, b"", True), lasted
