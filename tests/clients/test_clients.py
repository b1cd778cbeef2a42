"""Clients that nobody here wrote, none of which knows a token: through the real proxy, to the sandbox and back."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from slproxy.app import App
from slproxy.config import ListenSettings, Secret
from slproxy.sandbox import Options, Sandbox
from tests.support import ROOT, node
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import reply
from tests.support.sandboxes import running_sandbox
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.heavy

# As a shell passes it on: brackets, a plus, an escape in capitals and one in small letters.
BRACKETS = "/v2/people.json?ids[]=1&ids[]=2&q=a+b%20c%2F%2f&updated_at[gt]=2020-01-01T00:00:00.000000-05:00"
# What a program has that expects a token to be its own affair: it must not get far.
FOREIGN = "a-key-of-the-client's-own"
LOCAL_KEY = "local-key-0123456789"
# `--json` came with curl 7.82 only.
AS_JSON = ("--header", "Content-Type: application/json", "--data-binary")
# Above 1 MB curl asks before it sends: https://curl.se/docs/manpage.html#--expect100-timeout
BIG = json.dumps({"content": "x" * 2_000_000, "associated_with_type": "person", "associated_with_id": 1}).encode()


@dataclass
class Rig:
    """A proxy, and the sandbox behind it."""

    app: App
    sandbox: Sandbox

    @property
    def url(self) -> str:
        return self.app.urls[0]

    def seen(self, method: str, target: str) -> tuple[dict[str, str], bytes]:
        """Return headers, keyed in small letters, and body of the one such request that reached SalesLoft."""
        (request,) = [each for each in self.sandbox.requests if (each.method, each.target) == (method, target)]
        return {name.lower(): value for name, value in request.headers}, request.body

    def assert_all_bore_our_token(self, count: int) -> None:
        """Hold that SalesLoft got so many requests, each with one Authorization, the proxy's."""
        bearers = [
            [value for name, value in request.headers if name.lower() == "authorization"]
            for request in self.sandbox.requests
        ]
        assert bearers == [[f"Bearer {API_KEY}"]] * count


@asynccontextmanager
async def running(listen: ListenSettings | None = None, options: Options | None = None) -> AsyncIterator[Rig]:
    async with running_sandbox(options) as sandbox:
        settings = settings_for(sandbox.url)
        async with proxy(replace(settings, listen=listen or settings.listen)) as app:
            yield Rig(app, sandbox)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as running_rig:
        yield running_rig


# curl


@pytest.fixture(scope="session")
def curl_path() -> str:
    path = shutil.which("curl")
    if path is None:
        pytest.skip("no curl here")
    return path


@dataclass
class Curl:
    """curl, without the settings of whoever runs the tests."""

    path: str
    home: Path

    async def __call__(self, *arguments: str) -> tuple[str, str]:
        """Return what it printed on standard output and standard error; it must have succeeded."""
        code, out, err = await node.run(
            self.path, "--disable", "--silent", "--show-error", "--noproxy", "*", *arguments, home=self.home
        )
        assert code == 0, err
        return out, err


@pytest.fixture
def curl(curl_path: str, tmp_path: Path) -> Curl:
    return Curl(curl_path, tmp_path)


async def test_curl_gets_its_own_name_without_a_token(rig: Rig, curl: Curl) -> None:
    out, _ = await curl(f"{rig.url}/v2/me.json")

    assert json.loads(out)["data"]["name"] == "Jane Smith"
    rig.assert_all_bore_our_token(1)


async def test_a_bracket_query_of_curl_arrives_byte_for_byte(rig: Rig, curl: Curl) -> None:
    out, _ = await curl("--globoff", rig.url + BRACKETS)

    assert {person["id"] for person in json.loads(out)["data"]} <= {1, 2}
    assert [request.target for request in rig.sandbox.requests] == [BRACKETS]


async def test_json_that_curl_posts_arrives_byte_for_byte(rig: Rig, curl: Curl) -> None:
    body = '{"email_address" : "ada@curl.example",  "first_name":"Ad\\u0061"}'

    out, _ = await curl(*AS_JSON, body, f"{rig.url}/v2/people.json")

    assert json.loads(out)["data"]["first_name"] == "Ada"
    headers, received = rig.seen("POST", "/v2/people.json")
    assert received == body.encode()
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("curl/")


async def test_curl_is_told_to_go_on_with_an_upload_over_1_mb(rig: Rig, curl: Curl, tmp_path: Path) -> None:
    (tmp_path / "note.json").write_bytes(BIG)

    out, err = await curl("--verbose", *AS_JSON, f"@{tmp_path / 'note.json'}", f"{rig.url}/v2/notes.json")

    assert "> Expect: 100-continue" in err
    assert "< HTTP/1.1 100 Continue" in err
    assert "Done waiting for 100-continue" not in err
    assert json.loads(out)["data"]["associated_with"]["id"] == 1
    (request,) = rig.sandbox.requests
    assert (request.length, request.sha256) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    assert "expect" not in {name.lower() for name, _ in request.headers}


async def test_curl_uploads_a_body_in_chunks(rig: Rig, curl: Curl, tmp_path: Path) -> None:
    (tmp_path / "note.json").write_bytes(BIG)

    await curl(
        *("--header", "Transfer-Encoding: chunked", "--header", "Content-Type: application/json", "--request", "POST"),
        *("--upload-file", str(tmp_path / "note.json"), f"{rig.url}/v2/notes.json"),
    )

    (request,) = rig.sandbox.requests
    assert (request.status, request.length, request.sha256) == (200, len(BIG), hashlib.sha256(BIG).hexdigest())


async def test_curl_unpacks_the_gzip_that_the_upstream_sent(curl: Curl) -> None:
    packed = gzip.compress(b'{"data": "' + b"z" * 10_000 + b'"}')
    answer = reply("200 OK", packed, "Content-Type: application/json", "Content-Encoding: gzip")

    async with ScriptedUpstream(replies(answer)) as upstream, proxy(settings_for(upstream.url)) as app:
        unpacked, headers = await curl("--compressed", "--dump-header", "/dev/stderr", f"{app.urls[0]}/v2/me.json")

    assert unpacked.encode() == gzip.decompress(packed)
    assert f"content-length: {len(packed)}" in headers.lower()
    assert "gzip" in (upstream.seen[0].head.get("Accept-Encoding") or "")


async def test_curl_that_asks_for_no_encoding_has_none_asked_for_it(rig: Rig, curl: Curl) -> None:
    await curl(f"{rig.url}/v2/me.json")

    assert "accept-encoding" not in rig.seen("GET", "/v2/me.json")[0]


async def test_head_of_curl_gets_the_headers_of_get_and_no_body(rig: Rig, curl: Curl) -> None:
    head, _ = await curl("--head", f"{rig.url}/v2/people.json")
    body, _ = await curl(f"{rig.url}/v2/people.json")

    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert f"content-length: {len(body.encode())}\r\n" in head.lower()
    assert head.endswith("\r\n\r\n")
    rig.assert_all_bore_our_token(2)


async def test_curl_with_http_1_0_gets_a_whole_answer(rig: Rig, curl: Curl) -> None:
    out, headers = await curl("--http1.0", "--dump-header", "/dev/stderr", f"{rig.url}/v2/people.json?per_page=100")

    assert len(json.loads(out)["data"]) == 100
    assert "transfer-encoding" not in headers.lower()


async def test_curl_with_http_1_0_gets_whole_what_the_upstream_sent_in_chunks(curl: Curl) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"

    async with ScriptedUpstream(replies(answer)) as upstream, proxy(settings_for(upstream.url)) as app:
        out, headers = await curl("--http1.0", "--dump-header", "/dev/stderr", f"{app.urls[0]}/v2/me.json")

    assert out == "abcdefg"
    assert "transfer-encoding" not in headers.lower()


async def test_curl_reaches_the_proxy_over_a_unix_socket(curl: Curl, tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    async with running(ListenSettings(uds=str(path))) as rig:
        out, _ = await curl("--unix-socket", str(path), "http://localhost/v2/me.json")

        assert path.stat().st_mode & 0o777 == 0o600
        assert json.loads(out)["data"]["email"] == "jane@company.com"
        rig.assert_all_bore_our_token(1)


async def test_curl_uses_one_connection_for_two_requests(rig: Rig, curl: Curl) -> None:
    null = ("--output", "/dev/null", "--output", "/dev/null")
    connects, _ = await curl(
        "--write-out", "%{num_connects}", *null, f"{rig.url}/v2/me.json", f"{rig.url}/v2/team.json"
    )

    assert connects == "10"
    rig.assert_all_bore_our_token(2)


async def test_a_token_that_curl_brings_along_does_not_reach_salesloft(rig: Rig, curl: Curl) -> None:
    out, _ = await curl("--oauth2-bearer", FOREIGN, f"{rig.url}/v2/me.json")

    assert json.loads(out)["data"]["id"] == 1
    rig.assert_all_bore_our_token(1)
    assert FOREIGN not in str(rig.seen("GET", "/v2/me.json"))


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(("--header", f"X-Slproxy-Key: {LOCAL_KEY}"), id="in-its-own-header"),
        pytest.param(("--oauth2-bearer", LOCAL_KEY), id="as-a-bearer-token"),
        pytest.param(("--user", f"anyone:{LOCAL_KEY}"), id="as-the-password"),
    ],
)
async def test_curl_shows_the_local_key_and_salesloft_never_sees_it(curl: Curl, shown: tuple[str, ...]) -> None:
    async with running(ListenSettings(port=0, key=Secret(LOCAL_KEY))) as rig:
        refused, _ = await curl("--write-out", "%{http_code}", "--output", "/dev/null", f"{rig.url}/v2/me.json")
        out, _ = await curl(*shown, f"{rig.url}/v2/me.json")

        assert refused == "401"
        assert json.loads(out)["data"]["id"] == 1
        rig.assert_all_bore_our_token(1)
        assert LOCAL_KEY not in str(rig.seen("GET", "/v2/me.json"))


# requests: it blocks, so it runs in a thread beside the loop that the proxy runs in.


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        # No .netrc and no proxy of whoever runs the tests.
        session.trust_env = False
        yield session


async def test_requests_reads_a_list_with_bracket_parameters(rig: Rig, session: requests.Session) -> None:
    def ask() -> requests.Response:
        return session.get(
            f"{rig.url}/v2/people.json", params=[("ids[]", "1"), ("ids[]", "2"), ("per_page", "5")], timeout=10
        )

    response = await asyncio.to_thread(ask)

    assert {person["id"] for person in response.json()["data"]} == {1, 2}
    rig.assert_all_bore_our_token(1)


async def test_requests_creates_changes_and_deletes(rig: Rig, session: requests.Session) -> None:
    def work() -> tuple[requests.Response, ...]:
        people = f"{rig.url}/v2/people.json"
        ada = {"email_address": "ada@requests.example", "first_name": "Ada"}
        created = session.post(people, json=ada, timeout=PATIENCE)
        person = f"{rig.url}/v2/people/{created.json()['data']['id']}.json"
        updated = session.put(person, json={"title": "Countess"}, timeout=PATIENCE)
        return created, updated, session.delete(person, timeout=PATIENCE), session.get(person, timeout=PATIENCE)

    created, updated, deleted, missing = await asyncio.to_thread(work)

    assert [each.status_code for each in (created, updated, deleted, missing)] == [200, 200, 204, 404]
    assert updated.json()["data"]["title"] == "Countess"
    assert missing.json() == {"error": "Not Found"}
    rig.assert_all_bore_our_token(4)


async def test_requests_streams_an_answer(rig: Rig, session: requests.Session) -> None:
    def stream() -> tuple[int, bytes]:
        with session.get(f"{rig.url}/v2/people.json?per_page=100", stream=True, timeout=PATIENCE) as response:
            return int(response.headers["Content-Length"]), b"".join(response.iter_content(1000))

    length, body = await asyncio.to_thread(stream)

    assert len(body) == length
    assert len(json.loads(body)["data"]) == 100


async def test_requests_streams_an_upload_of_unknown_length(rig: Rig, session: requests.Session) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(BIG), 100_000):
            yield BIG[start : start + 100_000]

    def send() -> requests.Response:
        headers = {"Content-Type": "application/json"}
        return session.post(f"{rig.url}/v2/notes.json", data=pieces(), headers=headers, timeout=PATIENCE)

    response = await asyncio.to_thread(send)

    assert response.status_code == 200
    (request,) = rig.sandbox.requests
    assert (request.length, request.sha256) == (len(BIG), hashlib.sha256(BIG).hexdigest())


# httpx


async def test_httpx_reads_and_writes(rig: Rig) -> None:
    def work() -> tuple[httpx.Response, httpx.Response]:
        with httpx.Client(base_url=rig.url, trust_env=False) as client:
            body = {"email_address": "ada@httpx.example", "first_name": "Ada"}
            return client.get("/v2/me.json"), client.post("/v2/people.json", json=body)

    me, created = await asyncio.to_thread(work)

    assert me.json()["data"]["name"] == "Jane Smith"
    assert created.json()["data"]["email_address"] == "ada@httpx.example"
    rig.assert_all_bore_our_token(2)


async def test_200_concurrent_requests_of_httpx_are_all_answered_each_with_its_own(rig: Rig) -> None:
    count = 200
    # One connection each: httpx's own limit of 100 would make half of them wait.
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=rig.url, trust_env=False, limits=limits, timeout=PATIENCE) as client:
        answers = await asyncio.gather(*(client.get(f"/v2/people/{1 + n % 100}.json") for n in range(count)))

    assert [answer.json()["data"]["id"] for answer in answers] == [1 + n % 100 for n in range(count)]
    rig.assert_all_bore_our_token(count)


async def test_httpx_streams_an_answer_as_it_comes(rig: Rig) -> None:
    async with (
        httpx.AsyncClient(base_url=rig.url, trust_env=False) as client,
        client.stream("GET", "/v2/people.json?per_page=100") as response,
    ):
        body = b"".join([chunk async for chunk in response.aiter_raw()])

    assert len(body) == int(response.headers["Content-Length"])


# aiohttp's client


async def test_aiohttp_reads_and_writes(rig: Rig) -> None:
    async with aiohttp.ClientSession(rig.url) as client:
        async with client.get("/v2/people.json", params=[("ids[]", "1"), ("ids[]", "2")]) as response:
            people = (await response.json())["data"]
        async with client.post("/v2/people.json", json={"email_address": "ada@aiohttp.example"}) as response:
            created = (await response.json())["data"]

    assert {person["id"] for person in people} == {1, 2}
    assert created["email_address"] == "ada@aiohttp.example"
    rig.assert_all_bore_our_token(2)


async def test_aiohttp_uploads_a_file_after_it_was_told_to_go_on(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "note.json").write_bytes(BIG)
    async with aiohttp.ClientSession(rig.url) as client:
        with (tmp_path / "note.json").open("rb") as file:
            headers = {"Content-Type": "application/json"}
            async with client.post("/v2/notes.json", data=file, headers=headers, expect100=True) as response:
                assert response.status == 200

    (request,) = rig.sandbox.requests
    assert request.sha256 == hashlib.sha256(BIG).hexdigest()


# Two clients of SalesLoft from the npm registry: what they do is in tests/node.


@pytest.fixture(scope="session")
def node_packages() -> Path:
    return node.installed()


def test_the_pinned_packages_are_named_by_version_and_checksum_not_by_where_they_were_downloaded() -> None:
    packages = json.loads((node.HERE / "package-lock.json").read_text())["packages"]

    assert len(packages) > 100
    assert all("integrity" in package and "resolved" not in package for name, package in packages.items() if name)


async def test_the_open_sdk_works_with_nothing_but_its_base_url(rig: Rig, node_packages: Path, tmp_path: Path) -> None:
    told = await node.script("opensdks.mjs", rig.url, home=tmp_path)

    me, people, created, updated = (told[name] for name in ("me", "people", "created", "updated"))
    assert isinstance(me, dict)
    assert isinstance(people, list)
    assert isinstance(created, dict)
    assert isinstance(updated, dict)
    assert me["email"] == "jane@company.com"
    assert len(people) == 2
    assert created["email_address"] == "grace@opensdks.example"
    assert (updated["id"], updated["title"]) == (created["id"], "Rear Admiral")
    assert told["deleted"] == 204
    assert told["missing"] == {"code": 404, "error": {"error": "Not Found"}}
    rig.assert_all_bore_our_token(6)


async def test_the_salesloft_package_works_and_the_key_that_it_insists_on_stops_here(
    rig: Rig, node_packages: Path, tmp_path: Path
) -> None:
    told = await node.script("salesloft.cjs", rig.url, FOREIGN, home=tmp_path)

    me, people, created, updated = (told[name] for name in ("me", "people", "created", "updated"))
    assert isinstance(me, dict)
    assert isinstance(people, list)
    assert isinstance(created, dict)
    assert isinstance(updated, dict)
    assert me["email"] == "jane@company.com"
    assert len(people) == 2
    assert created["email_address"] == "ada@salesloft.example"
    assert (updated["id"], updated["title"]) == (created["id"], "Countess")
    assert told["missing"] == 404
    assert told["invalid"] == {"errors": {"domain": ["can't be blank"]}}
    assert FOREIGN not in str([request.headers for request in rig.sandbox.requests])
    rig.assert_all_bore_our_token(7)


# What the README has a reader change.


def changed_lines() -> list[tuple[str, str]]:
    """Return the language and the text of each example in the README's section Change one line."""
    section = (ROOT / "README.md").read_text().partition("## Change one line\n")[2].partition("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)


@pytest.mark.parametrize(("language", "example"), changed_lines())
async def test_with_its_base_url_changed_an_example_of_the_readme_works_without_a_token(
    rig: Rig, tmp_path: Path, language: str, example: str
) -> None:
    program = {"bash": "bash", "python": sys.executable, "javascript": "node"}[language]
    if language == "javascript":
        node.installed()
    code, out, err = await node.run(
        program, "-e" if program == "node" else "-c", example.replace("http://localhost:8642", rig.url), home=tmp_path
    )
    assert code == 0, err
    assert "Jane Smith" in out
    rig.assert_all_bore_our_token(1)
