"""Who gets to the inspector, and what a browser may do with it (docs/inspector.md, Who sees what)."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from slproxy.config import InspectSettings, ListenSettings, Secret
from slproxy.sandbox import Sandbox
from tests.support import ROOT
from tests.support.inspector import PAGE, act, archive, stream
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import get, port_of, raw
from tests.support.users import another_user, needs_users

LOCAL_KEY = "a-local-key-of-many-letters"
PAGES = ("/_slproxy/", f"{PAGE}events", f"{PAGE}har", f"{PAGE}exchanges/1", f"{PAGE}app.js")
ACTS = ("resend", "bodies", "clear", "pin")
OWN = ("Content-Type: application/json", "X-Slproxy-Inspector: 1")

# What a browser says of a page elsewhere, and the Host that it asks for; `{port}` is the proxy's.
STRANGERS = {
    "a rebinding page": ("evil.test:{port}", ()),
    "another site": ("localhost:{port}", ("Origin: https://evil.test", "Sec-Fetch-Site: cross-site")),
    "another port of localhost": ("localhost:{port}", ("Origin: http://localhost:1", "Sec-Fetch-Site: same-site")),
    "another port, without Origin": ("localhost:{port}", ("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors")),
    "a page of listen.allow_origins": ("localhost:{port}", ("Origin: https://friend.test",)),
    "a sandboxed frame": ("localhost:{port}", ("Origin: null",)),
}


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_a_page_of_another_origin_gets_nothing(stranger: str, sandbox: Sandbox) -> None:
    host, headers = STRANGERS[stranger]
    settings = replace(settings_for(sandbox.url), listen=ListenSettings(port=0, allow_origins=("https://friend.test",)))
    async with proxy(settings) as app:
        url = app.urls[0]
        await raw(url, get("/v2/me.json"))
        named = host.format(port=port_of(url))
        for page in PAGES:
            answer = await raw(url, get(page, *headers, host=named))
            assert answer.head.status in (403, 421), page
            assert b"me.json" not in answer.body
        for name in ACTS:
            answer = await raw(url, get(PAGE + name, *OWN, *headers, method="POST", body=b'{"n": 1}', host=named))
            assert answer.head.status in (403, 421), name
        assert len((await archive(url))["log"]["entries"]) == 1


async def test_what_writes_needs_what_no_foreign_page_can_send(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        url = app.urls[0]
        await raw(url, get("/v2/me.json"))
        for headers in (
            ("Content-Type: application/json",),
            ("X-Slproxy-Inspector: 1", "Content-Type: text/plain"),
            ("X-Slproxy-Inspector: 1",),
        ):
            for name in ACTS:
                answer = await raw(url, get(PAGE + name, *headers, method="POST", body=b'{"n": 1}'))
                assert json.loads(answer.body)["type"] == "origin-refused"
        for name in ACTS:
            assert (await raw(url, get(PAGE + name))).head.get("Allow") == "POST"
        for body in (b"", b"[]", b"{", b'{"n": NaN}'):
            assert (await raw(url, get(PAGE + "pin", *OWN, method="POST", body=body))).head.status == 400
        large = b'{"a": "' + b"x" * 2**20 + b'"}'
        assert (await raw(url, get(PAGE + "pin", *OWN, method="POST", body=large))).head.status == 413
        no_numbers: tuple[object, ...] = (0, -1, "x", None, [], 1.5, True, 10**30)
        for n in no_numbers:
            assert (await act(url, "pin", {"n": n, "pinned": True}))[0] in (400, 404), n
        for path in ("x", "-1", "", "1/2", "%31"):
            assert (await raw(url, get(f"{PAGE}exchanges/{path}"))).head.status == 404


async def test_the_local_key_is_asked_for_as_a_browser_can_give_it(sandbox: Sandbox) -> None:
    settings = replace(settings_for(sandbox.url), listen=ListenSettings(port=0, key=Secret(LOCAL_KEY)))
    async with proxy(settings) as app:
        url = app.urls[0]
        for page in PAGES:
            answer = await raw(url, get(page))
            assert answer.head.status == 401
            assert any(each.startswith("Basic ") for each in answer.head.all("WWW-Authenticate"))
        basic = "Authorization: Basic " + base64.b64encode(f"me:{LOCAL_KEY}".encode()).decode()
        assert (await raw(url, get("/_slproxy/", basic))).head.status == 200
        await raw(url, get("/v2/me.json", basic))
        async with stream(url, basic) as tab:
            await tab.row(1)
        # It is sent again with the key of whoever asks.
        assert (await act(url, "resend", {"n": 1}, basic))[0] == 200
        assert (await act(url, "resend", {"n": 1}))[0] == 401


async def test_another_user_of_this_machine_gets_nothing(sandbox: Sandbox) -> None:
    needs_users()
    async with proxy(settings_for(sandbox.url)) as app:
        for page in PAGES:
            with another_user():
                answer = await raw(app.urls[0], get(page))
            assert json.loads(answer.body)["type"] == "user-refused"


async def test_each_answer_tells_a_browser_what_it_must_not_do(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        url = app.urls[0]
        await raw(url, get("/v2/me.json"))
        heads = [(await raw(url, get(page, method="HEAD"), method="HEAD")).head for page in PAGES]
    for head in heads:
        assert head.status == 200
        policy = dict(each.strip().split(" ", 1) for each in (head.get("Content-Security-Policy") or "").split(";"))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        told = {name: head.get(name) for name in ("X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy")}
        assert told == {
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        assert head.get("Cross-Origin-Opener-Policy") == head.get("Cross-Origin-Resource-Policy") == "same-origin"
        assert head.get("Proxy-Status") == "slproxy"
        assert head.get("Cache-Control") in ("no-store", "no-cache")


async def test_the_files_of_the_page_are_served_and_nothing_else(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        url = app.urls[0]
        first = await raw(url, get("/_slproxy/"))
        assert first.head.get("Content-Type") == "text/html; charset=utf-8"
        tag = first.head.get("ETag")
        again = await raw(url, get("/_slproxy/", f"If-None-Match: {tag}"))
        assert (again.head.status, again.body) == (304, b"")
        script = await raw(url, get(f"{PAGE}app.js"))
        assert script.head.get("Content-Type") == "text/javascript; charset=utf-8"
        for name in ("../static.py", "%2e%2e/static.py", ".hidden.js", "vendor", "vendor/", "nothing.js", "x.py", ""):
            assert (await raw(url, get(PAGE + name))).head.status in (400, 404), name
        for method in ("POST", "PUT", "DELETE"):
            assert (await raw(url, get("/_slproxy/", method=method))).head.status == 405
        hint = json.loads((await raw(url, get("/_slproxy"))).body)["hint"]
        assert "/_slproxy/" in hint


def test_the_wheel_has_the_files_of_the_page() -> None:
    builder = WheelBuilder(str(ROOT))
    included = {Path(each.relative_path) for each in builder.recurse_included_files()}
    page = ROOT / "slproxy" / "inspect" / "page"
    assert {each.relative_to(ROOT) for each in page.rglob("*") if each.is_file()} <= included


async def test_off_there_is_nothing(sandbox: Sandbox) -> None:
    settings = replace(settings_for(sandbox.url), inspect=InspectSettings(enabled=False))
    async with proxy(settings) as app:
        for page in PAGES:
            answer = await raw(app.urls[0], get(page))
            assert answer.head.status == 404
            assert "inspect.enabled" in json.loads(answer.body)["hint"]
