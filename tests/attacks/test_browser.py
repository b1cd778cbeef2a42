"""What a web page can do, in a real browser: nothing, unless its origin is allowed: docs/hazards.md, B1."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from slproxy.config import ListenSettings, Secret
from slproxy.config.schema import PolicySettings
from tests.support import chromium
from tests.support.chromium import Tab, new_tab
from tests.support.clock import FakeTime
from tests.support.listener import Listener, reserved_port
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Head, Message, get, port_of, raw, read_message, reply
from tests.support.scripted import Handler, ScriptedUpstream, replies
from tests.support.waiting import until

pytestmark = pytest.mark.heavy

LOCAL_KEY = "local-key-7f3a"
PROFILE = b'{"data": {"email": "jane@company.com"}}'


# The three sides: pages, the proxy with a listener before it, the upstream.


@dataclass
class Heard:
    """One request of the browser as it stood on the wire, and the proxy's answer."""

    request: Message
    answer: Message | None = None

    @property
    def status(self) -> int:
        assert self.answer is not None, f"unanswered: {self.request.head.first}"
        return self.answer.head.status

    @property
    def problem(self) -> object:
        assert self.answer is not None
        return json.loads(self.answer.body)["type"] if self.status >= 400 else None


class Tap(Listener):
    """Stands between the browser and the proxy, changes nothing, and keeps what both say."""

    def __init__(self, port: int) -> None:
        super().__init__(self._stand_between)
        self._to = port
        self.all: list[Heard] = []

    @property
    def heard(self) -> list[Heard]:
        """What was asked of the API: all, but for what the browser asks on its own."""
        return [heard for heard in self.all if heard.request.head.target.startswith("/v2/")]

    async def _stand_between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy_reader, proxy_writer = await asyncio.open_connection("127.0.0.1", self._to)
        asked, answered = asyncio.StreamReader(limit=2**20), asyncio.StreamReader(limit=2**20)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, proxy_writer, asked))
                group.create_task(_pass_on(proxy_reader, writer, answered))
                group.create_task(self._follow(asked, answered))
        except asyncio.CancelledError:  # the end of the test
            for each in (writer, proxy_writer):
                each.transport.abort()
        finally:
            proxy_writer.close()

    async def _follow(self, asked: asyncio.StreamReader, answered: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                heard = Heard(await read_message(asked))
                self.all.append(heard)
                heard.answer = await read_message(answered, has_body=heard.request.head.method != "HEAD")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(2**16):
            copy.feed_data(data)
            writer.write(data)
            await writer.drain()
    copy.feed_eof()
    with suppress(OSError):
        writer.write_eof()


async def page(request: web.BaseRequest) -> web.StreamResponse:
    """Serve an empty page, or send on to where the query says."""
    if (to := request.query.get("to")) is not None:
        return web.Response(status=307, headers={"Location": to})
    text = "<!doctype html><link rel=icon href=data:,><title>a page</title><body>"
    return web.Response(text=text, content_type="text/html")


@asynccontextmanager
async def pages(port: int = 0, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve pages under every name of this machine; give the port."""
    server = web.Server(page)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        yield int(runner.addresses[0][1])
    finally:
        for connection in server.connections:
            if connection.transport is not None:
                connection.transport.abort()  # a browser takes its time to end TLS
        await runner.cleanup()


@dataclass(frozen=True)
class Read:
    """What a page could read of an answer."""

    status: int
    body: str
    headers: dict[str, str]


NOTHING = Read(0, "", {})


@dataclass
class Scene:
    """A tab, a server of pages, and the proxy with its upstream."""

    tab: Tab
    upstream: ScriptedUpstream
    tap: Tap
    pages: int

    def url(self, template: str) -> str:
        """Put the ports in: ``{pages}`` is where the pages are, ``{proxy}`` where the proxy is."""
        return template.format(pages=self.pages, proxy=self.tap.port)

    async def fetch(self, url: str, **init: object) -> Read:
        """Let the page call ``fetch``; return all that it can read."""
        read = await self.tab.run(
            f"return fetch({json.dumps(self.url(url))}, {json.dumps(init)}).then("
            "async r => [r.status, await r.text(), Object.fromEntries(r.headers)], () => [0, '', {}])"
        )
        assert isinstance(read, list)
        return Read(*read)


async def profile(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as SalesLoft would, and with what no page may be told to believe."""
    headers = (
        *("Content-Type: application/json", "X-RateLimit-Remaining-Minute: 599"),
        *("Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true"),
    )
    writer.write(reply("200 OK", b"" if message.head.method == "HEAD" else PROFILE, *headers))


@asynccontextmanager
async def scene(
    browser: str,
    *,
    script: Handler = profile,
    allow: tuple[str, ...] = (),
    accept: tuple[str, ...] = (),
    key: str | None = None,
    read_only: bool = False,
    page_port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Scene]:
    """Set up all sides; ``allow`` are the origins in ``listen.allow_origins``, with ``{pages}`` for the port."""
    async with pages(page_port, tls=tls) as port, ScriptedUpstream(script) as upstream:
        origins = tuple(origin.format(pages=port) for origin in allow)
        settings = replace(
            settings_for(upstream.url),
            listen=ListenSettings(port=0, allow_origins=origins, accept_hosts=accept, key=Secret(key) if key else None),
            policy=PolicySettings(read_only=read_only),
        )
        async with (
            proxy(settings, clock=FakeTime().clock()) as app,
            Tap(port_of(app.urls[0])) as tap,
            new_tab(browser) as tab,
        ):
            yield Scene(tab, upstream, tap, port)


@dataclass(frozen=True)
class Browser:
    """The browser of all tests, and a port whose pages it takes for pages from the internet."""

    address: str
    public_port: int


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    if chromium.BINARY is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with (
        reserved_port() as public,
        chromium.running(f"--ip-address-space-overrides=127.0.0.1:{public}=public") as address,
    ):
        yield Browser(address, public)


@pytest.fixture
def browser(chrome: Browser) -> str:
    return chrome.address


# What pages try. Each is the body of an asynchronous function of the proxy's address ``to`` and the page's own server
# ``here``; it returns what the page could read of the answer, and nothing when it could read nothing.

_WITH = """
const when = (it, ...names) => new Promise(r => names.forEach(name => it.addEventListener(name, () => r(name))));
const made = (tag, fields) => Object.assign(document.createElement(tag), fields);
const put = (tag, fields) => document.body.appendChild(made(tag, fields));
const loaded = async it => await when(it, 'load', 'error') == 'load' ? 'loaded' : '';
const opened = async it => await when(it, 'open', 'error') == 'open' ? 'opened' : '';
const inside = get => { try { return get().document.documentElement.innerText } catch { return '' } };
const text = response => response.text();
const nothing = () => '';
const me = to + '/v2/me.json', people = to + '/v2/people.json';
"""

READS = {
    "an image": "return loaded(put('img', {src: me}))",
    "a script": "return loaded(put('script', {src: me}))",
    "a stylesheet": "return loaded(put('link', {rel: 'stylesheet', href: me}))",
    "a prefetch": "await when(put('link', {rel: 'prefetch', href: me}), 'load', 'error'); return ''",
    "a font": "return new FontFace('f', `url(${me})`).load().then(() => 'loaded', nothing)",
    "a video": "return await when(put('video', {src: me}), 'loadedmetadata', 'error') == 'error' ? '' : 'loaded'",
    "an object": "const it = put('object', {data: me}); return await loaded(it) && inside(() => it.contentWindow)",
    "a frame": "const it = put('iframe', {src: me}); await when(it, 'load'); return inside(() => it.contentWindow)",
    "a module": "return import(me).then(() => 'imported', nothing)",
    "a worker's script": """
        const code = `let read = 'loaded'; try { importScripts('${me}') } catch { read = '' } postMessage(read)`;
        const worker = new Worker(URL.createObjectURL(new Blob([code])));
        return new Promise(r => worker.onmessage = event => r(event.data))""",
    "an event source": "const source = new EventSource(me), read = await opened(source); source.close(); return read",
    "a web socket": "return opened(new WebSocket(me.replace('http', 'ws')))",
    "fetch": "return fetch(me).then(text, nothing)",
    "fetch with cookies": "return fetch(me, {credentials: 'include'}).then(text, nothing)",
    "fetch without cors": "return fetch(me, {mode: 'no-cors'}).then(text, nothing)",
    "an image behind a redirect": "return loaded(put('img', {src: here + '?to=' + me}))",
}  # fmt: skip

WRITES = {
    "a form": """
        const frame = put('iframe', {name: 'answer'});
        const form = put('form', {method: 'POST', action: people, enctype: 'text/plain', target: 'answer'});
        form.append(made('input', {name: '{"a":"', value: '"}'}));
        form.submit(); await when(frame, 'load'); return inside(() => frame.contentWindow)""",
    "a form behind a redirect": """
        const frame = put('iframe', {name: 'answer'});
        const form = put('form', {method: 'POST', action: here + '?to=' + people, target: 'answer'});
        form.submit(); await when(frame, 'load'); return inside(() => frame.contentWindow)""",
    "a beacon": "return navigator.sendBeacon(people, '{}') ? '' : 'not sent'",
    "fetch of a POST without cors": (
        "return fetch(people, {mode: 'no-cors', method: 'POST', body: '{}', keepalive: true}).then(text, nothing)"
    ),
    "fetch of a POST": "return fetch(people, {method: 'POST', body: '{}'}).then(text, nothing)",
}

PREFLIGHTED = {
    "fetch with a header of its own": "return fetch(me, {headers: {'X-Custom': '1'}}).then(text, nothing)",
    "fetch with the local key's header": "return fetch(me, {headers: {'X-Slproxy-Key': 'guess'}}).then(text, nothing)",
    "fetch of a PUT": "return fetch(people, {method: 'PUT', body: '{}'}).then(text, nothing)",
    "fetch of a DELETE": "return fetch(people, {method: 'DELETE'}).then(text, nothing)",
    "fetch of JSON": (
        "const headers = {'Content-Type': 'application/json'};"
        "return fetch(people, {method: 'POST', headers, body: '{}'}).then(text, nothing)"
    ),
    "a beacon of JSON": (
        "return navigator.sendBeacon(people, new Blob(['{}'], {type: 'application/json'})) ? '' : 'not sent'"
    ),
}

ALL = READS | WRITES | PREFLIGHTED
# One of each kind: without Origin, navigating, without Sec-Fetch-Site, with both, asking first.
FEW = ("an image", "a frame", "a web socket", "a form", "fetch", "fetch of a POST without cors", "fetch of a PUT")


async def attempt(
    scene: Scene, script: str, *, to: str, here: str, framed: bool = False, clicked: bool = True
) -> object:
    """Let the page try something; ``framed`` lets a sandboxed frame in it try."""
    script = f"const to = {json.dumps(scene.url(to))}, here = {json.dumps(scene.url(here))};{_WITH}{script}"
    if framed:
        inner = f"<body><script>(async () => {{{script}}})().then(read => parent.postMessage(read, '*'))</script>"
        quoted = json.dumps(inner).replace("</", "<\\/")
        script = f"""
            const frame = document.createElement('iframe');
            frame.sandbox = 'allow-scripts allow-forms'; frame.srcdoc = {quoted};
            const read = new Promise(r => addEventListener('message', event => r([event.data, event.origin])));
            document.body.append(frame); return read"""
        read = await scene.tab.run(script)
        assert isinstance(read, list)
        assert read[1] == "null", "the frame is not sandboxed"
        return read[0]
    return await scene.tab.run(script, clicked=clicked)


async def refused(
    scene: Scene, read: object, trick: str = "", *, status: int = 403, problem: str = "origin-refused"
) -> list[Head]:
    """Hold that the proxy was asked and refused, that nothing went up and that the page read nothing.

    Return the heads of the browser's requests, and forget them.
    """
    await until(lambda: bool(scene.tap.heard))
    await shared_with_nobody(scene)
    for heard in scene.tap.heard:
        assert (heard.status, heard.problem) == (status, problem), (trick, heard.request.head.raw)
    assert read == "", trick
    assert scene.upstream.seen == [], trick
    heads = [heard.request.head for heard in scene.tap.heard]
    scene.tap.all.clear()
    return heads


async def shared_with_nobody(scene: Scene) -> None:
    """Hold that no answer tells a browser to show it to a page, or shows a secret."""
    await until(lambda: all(heard.answer is not None for heard in scene.tap.all))
    for heard in scene.tap.all:
        assert heard.answer is not None
        assert not [name for name, _ in heard.answer.head.fields if name.lower().startswith("access-control-")]
        assert API_KEY.encode() not in heard.answer.head.raw + heard.answer.body


@pytest.mark.parametrize("trick", ALL)
async def test_a_page_of_another_origin_gets_nothing_by(browser: str, trick: str) -> None:
    async with scene(browser) as stage:
        # Another site, and another port of this one: to a browser that is the same site, where much is let through.
        for name, site in (("evil.test", "cross-site"), ("localhost", "same-site")):
            here = stage.url(f"http://{name}:{{pages}}/")
            await stage.tab.open(here)
            read = await attempt(stage, ALL[trick], to="http://localhost:{proxy}", here=here)
            requests = await refused(stage, read, name)
            sent = {site for request in requests for site in request.all("Sec-Fetch-Site")}
            assert sent == (set() if trick == "a web socket" else {site})


@pytest.mark.parametrize(
    ("name", "to"),
    [
        pytest.param("127.0.0.1", "http://127.0.0.1:{proxy}", id="another port of 127.0.0.1"),
        pytest.param("localhost", "http://127.0.0.1:{proxy}", id="another name of this machine"),
    ],
)
async def test_a_page_of_this_machine_gets_nothing_either(browser: str, name: str, to: str) -> None:
    async with scene(browser) as stage:
        here = stage.url(f"http://{name}:{{pages}}/")
        await stage.tab.open(here)
        for trick in FEW:
            await refused(stage, await attempt(stage, ALL[trick], to=to, here=here), trick)


@pytest.mark.parametrize("name", ["evil.test", "localhost", "app.test"])
async def test_a_sandboxed_frame_gets_nothing_even_in_an_allowed_page(browser: str, name: str) -> None:
    async with scene(browser, allow=("http://app.test:{pages}",)) as stage:
        here = stage.url(f"http://{name}:{{pages}}/")
        await stage.tab.open(here)
        for trick in FEW:
            read = await attempt(stage, ALL[trick], to="http://localhost:{proxy}", here=here, framed=True)
            requests = await refused(stage, read, trick)
            assert {origin for request in requests for origin in request.all("Origin")} <= {"null"}


async def test_a_page_in_a_file_gets_nothing(browser: str, tmp_path: Path) -> None:
    here = (tmp_path / "page.html").as_uri()
    (tmp_path / "page.html").write_text("<!doctype html><title>a file</title><body>")
    async with scene(browser) as stage:
        await stage.tab.open(here)
        for trick in FEW:
            await refused(stage, await attempt(stage, ALL[trick], to="http://localhost:{proxy}", here=here), trick)


@pytest.mark.parametrize("host", ["0.0.0.0", "app.localhost", "rebind.test"])
async def test_a_page_gets_nothing_under_a_name_of_this_machine_that_is_not_the_proxys(browser: str, host: str) -> None:
    # To none but app.localhost does the browser send Sec-Fetch-Site: the name alone must do (docs/hazards.md, trap 9).
    async with scene(browser) as stage:
        here = stage.url("http://evil.test:{pages}/")
        await stage.tab.open(here)
        for trick in FEW:
            read = await attempt(stage, ALL[trick], to=f"http://{host}:{{proxy}}", here=here)
            await refused(stage, read, trick, status=421, problem="host-refused")


async def test_a_page_gets_nothing_when_only_others_are_allowed(browser: str) -> None:
    async with scene(browser, allow=("https://app.test", "http://app.test:{pages}")) as stage:
        here = stage.url("http://evil.test:{pages}/")
        await stage.tab.open(here)
        for trick in FEW:
            read = await attempt(stage, ALL[trick], to="http://localhost:{proxy}", here=here)
            await refused(stage, read, trick)


@pytest.mark.parametrize("target", ["/_slproxy/status.json", "/_slproxy/healthz", "/v1/people.json", "/"])
async def test_a_page_of_another_origin_cannot_read_what_the_proxy_says_of_itself(browser: str, target: str) -> None:
    async with scene(browser) as stage:
        await stage.tab.open(stage.url("http://localhost:{pages}/"))
        assert await stage.fetch("http://localhost:{proxy}" + target) == NOTHING
        assert [heard.request.head.target for heard in stage.tap.all] == [target]
        await shared_with_nobody(stage)


# The inspector, whose stream of events tells what all clients do.

_JSON = "{method: 'POST', body: '{}', headers: {'Content-Type': 'application/json', 'X-Slproxy-Inspector': '1'}}"
INSPECTOR = {
    "the stream of events": (
        "const source = new EventSource(inspector + 'events'), read = await opened(source); source.close(); return read"
    ),
    "fetch of the stream": "return fetch(inspector + 'events').then(text, nothing)",
    "an archive": "return fetch(inspector + 'har').then(text, nothing)",
    "details without cors": "return fetch(inspector + 'exchanges/1', {mode: 'no-cors'}).then(text, nothing)",
    "a script of its page": "return import(inspector + 'app.js').then(() => 'imported', nothing)",
    "its page in a frame": """
        const it = put('iframe', {src: to + '/_slproxy/'});
        await when(it, 'load'); return inside(() => it.contentWindow)""",
    "clearing": f"return fetch(inspector + 'clear', {_JSON}).then(text, nothing)",
    "clearing without cors": (
        "return fetch(inspector + 'clear', {mode: 'no-cors', method: 'POST', body: '{}'}).then(text, nothing)"
    ),
}


@pytest.mark.parametrize("trick", INSPECTOR)
async def test_no_page_but_its_own_gets_anything_of_the_inspector_by(browser: str, trick: str) -> None:
    # Another site, another port of this one, one whose name was rebound, and one that may use the API.
    async with scene(browser, allow=("http://app.test:{pages}",)) as stage:
        await raw(stage.url("http://localhost:{proxy}"), get("/v2/me.json"))
        stage.upstream.seen.clear()
        stage.tap.all.clear()
        cases = [(f"http://{name}.test:{{pages}}/", "http://localhost:{proxy}") for name in ("evil", "app")]
        cases += [("http://localhost:{pages}/", "http://localhost:{proxy}")]
        cases += [("http://evil.test:{pages}/", "http://rebind.test:{proxy}")]
        for page, to in cases:
            here = stage.url(page)
            await stage.tab.open(here)
            script = f"const inspector = to + '/_slproxy/inspector/';{INSPECTOR[trick]}"
            read = await attempt(stage, script, to=to, here=here)
            # What an allowed page reads is the refusal.
            assert read == "" or ("app.test" in page and json.loads(str(read))["type"] == "origin-refused"), page
            await until(lambda: any(heard.answer is not None for heard in stage.tap.all))
            for heard in stage.tap.all:
                # A preflight of an allowed origin is answered before it is known what for.
                asks_first = heard.request.head.method == "OPTIONS" and "app.test" in page
                assert heard.answer is not None
                assert heard.status in (403, 421) or (asks_first and heard.status == 204), page
            stage.tap.all.clear()
        kept = await raw(stage.url("http://localhost:{proxy}"), get("/_slproxy/inspector/exchanges/1"))
        assert kept.head.status == 200


# Links and windows: what a page opens but cannot look into.

_OPENED = """
const watched = async it => {
    for (;;) {
        try { if (it.location.href != 'about:blank') return 'where it is' } catch { return inside(() => it) }
        await new Promise(r => setTimeout(r, 10));
    }
};
"""
OPENS = {
    "a window": "return watched(open(me))",
    "a link": "put('a', {href: me, target: 'opened', rel: 'opener'}).click(); return watched(open('', 'opened'))",
    "a form": """
        put('form', {method: 'POST', action: people, target: 'opened', rel: 'opener'}).submit();
        return watched(open('', 'opened'))""",
}  # fmt: skip


@pytest.mark.parametrize("trick", OPENS)
async def test_a_page_of_another_site_cannot_even_open(browser: str, trick: str) -> None:
    async with scene(browser) as stage:
        here = stage.url("http://evil.test:{pages}/")
        await stage.tab.open(here)
        await refused(stage, await attempt(stage, _OPENED + OPENS[trick], to="http://localhost:{proxy}", here=here))


@pytest.mark.parametrize(
    ("trick", "clicked"),
    [
        pytest.param("a window", False, id="a window that nobody asked for"),
        pytest.param("a form", True, id="a form that is submitted"),
    ],
)
async def test_a_page_on_another_port_of_localhost_cannot_open(browser: str, trick: str, clicked: bool) -> None:
    async with scene(browser) as stage:
        here = stage.url("http://localhost:{pages}/")
        await stage.tab.open(here)
        script = _OPENED + OPENS[trick]
        await refused(stage, await attempt(stage, script, to="http://localhost:{proxy}", here=here, clicked=clicked))


async def test_a_link_on_another_port_of_localhost_can_be_followed_and_its_page_reads_nothing(browser: str) -> None:
    async with scene(browser) as stage:
        here = stage.url("http://localhost:{pages}/")
        await stage.tab.open(here)
        read = await attempt(stage, _OPENED + OPENS["a link"], to="http://localhost:{proxy}", here=here)
        assert read == ""
        await until(lambda: bool(stage.tap.heard) and stage.tap.heard[0].answer is not None)
        assert [heard.status for heard in stage.tap.heard] == [200]
        await shared_with_nobody(stage)


# What the API says runs in no origin: its HTML is somebody's e-mail, its scripts are nobody's.

_STEAL = "fetch('/v2/stolen.json').then(r => r.text()).then(read => document.title = read)"
HTML = f'<!doctype html><title>HTML</title><body onload="{_STEAL}">text<script>{_STEAL}</script>'.encode()
SCRIPT = b"self.onmessage = self.onconnect = () => 0; fetch('/v2/stolen.json'); self.postMessage?.('ran')"


async def active(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with what a browser would run, and with leave to run it everywhere."""
    kind, body = ("html", HTML) if "page" in message.head.target else ("javascript", SCRIPT)
    if "stolen" in message.head.target:
        kind, body = "plain", b"stolen"
    writer.write(reply("200 OK", body, f"Content-Type: text/{kind}", "Service-Worker-Allowed: /"))


@pytest.mark.parametrize("host", ["localhost", "rebind.test"])
async def test_a_page_from_the_api_is_shown_and_runs_nothing(browser: str, host: str) -> None:
    # To a name in accept_hosts, which is not trustworthy to a browser, it sends no Sec-Fetch-Dest.
    async with scene(browser, script=active, accept=("rebind.test",)) as stage:
        await stage.tab.open(stage.url(f"http://{host}:{{proxy}}/v2/page"))
        assert await stage.tab.run("return document.title") == "HTML"
        assert await stage.tab.run("return origin") == "null"
        assert [message.head.target for message in stage.upstream.seen] == ["/v2/page"]


_RUN = """
const looked = async it => { await when(it, 'load', 'error'); return inside(() => it.contentWindow) };
const registered = it => navigator.serviceWorker.register('/v2/worker.js', it).then(() => 'registered', nothing);
const settled = () => new Promise(r => setTimeout(r, 300));
"""
RUNS = {
    "a frame": "return looked(put('iframe', {src: '/v2/page'}))",
    "an object": "return looked(put('object', {data: '/v2/page'}))",
    "a window": "const it = open('/v2/page'); await settled(); return inside(() => it)",
    # It runs, and as nobody: what it asks for has the origin `null`.
    "a worker": "await when(new Worker('/v2/worker.js'), 'message', 'error'); await settled(); return ''",
    "a shared worker": "new SharedWorker('/v2/worker.js'); await settled(); return ''",
    "a service worker": "return registered({scope: '/'})",
    "a service worker for what is below it": "return registered({})",
    "a service worker of modules": "return registered({type: 'module'})",
}


@pytest.mark.parametrize("trick", RUNS)
async def test_a_page_of_the_proxys_own_cannot_run_what_the_api_says_as(browser: str, trick: str) -> None:
    async with scene(browser, script=active) as stage:
        await stage.tab.open(stage.url("http://localhost:{proxy}/_slproxy/status.json"))
        assert await attempt(stage, _RUN + RUNS[trick], to="http://localhost:{proxy}", here="") == ""
        assert "/v2/stolen.json" not in [message.head.target for message in stage.upstream.seen]
        # And nothing is wrong but that.
        assert (await stage.fetch("/v2/people.json")).status == 200


# A name that was rebound: the page's server is gone, and the proxy has its name and port.

REBOUND = {
    "fetch": {},
    "fetch with headers of its own": {"headers": {"X-Custom": "1", "X-Slproxy-Key": "guess"}},
    "fetch of JSON": {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": "{}"},
    "fetch of a DELETE": {"method": "DELETE"},
}


@asynccontextmanager
async def rebound(browser: str, **listen: tuple[str, ...]) -> AsyncIterator[tuple[Tab, ScriptedUpstream]]:
    """Open a page of http://rebind.test, then let the proxy take over its port."""
    async with ScriptedUpstream(profile) as upstream, new_tab(browser) as tab:
        async with pages() as port:
            await tab.open(f"http://rebind.test:{port}/")
        settings = settings_for(upstream.url)
        async with proxy(replace(settings, listen=ListenSettings(port=port, **listen))):  # type: ignore[arg-type]
            yield tab, upstream


async def fetched(tab: Tab, init: object) -> tuple[object, str]:
    read = await tab.run(f"const r = await fetch('/v2/me.json', {json.dumps(init)}); return [r.status, await r.text()]")
    assert isinstance(read, list)
    return read[0], str(read[1])


@pytest.mark.parametrize("trick", REBOUND)
async def test_a_rebound_page_is_told_only_that_it_is_refused_by(browser: str, trick: str) -> None:
    async with rebound(browser) as (tab, upstream):
        status, body = await fetched(tab, REBOUND[trick])
        assert (status, json.loads(body)["type"]) == (421, "host-refused")
        assert API_KEY not in body
        assert upstream.seen == []


async def test_nothing_but_its_name_stops_a_rebound_page(browser: str) -> None:
    # Else the test above would show that something else is wrong with the request.
    async with rebound(browser, accept_hosts=("rebind.test",)) as (tab, upstream):
        assert await fetched(tab, REBOUND["fetch of JSON"]) == (200, PROFILE.decode())
        assert len(upstream.seen) == 1


# What works.


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_typing_an_address_shows_what_the_api_says(browser: str, host: str) -> None:
    async with scene(browser) as stage:
        # Whatever is open at the time: the browser says that a person asks.
        await stage.tab.open(stage.url("http://evil.test:{pages}/"))
        await stage.tab.open(stage.url(f"http://{host}:{{proxy}}/v2/me.json"))
        assert await stage.tab.run("return document.querySelector('pre').textContent") == PROFILE.decode()
        assert stage.tap.heard[0].request.head.get("Sec-Fetch-Site") == "none"
        # Every browser asks for this on its own, sooner or later.
        assert (
            await raw(stage.url("http://localhost:{proxy}"), get("/favicon.ico", "Sec-Fetch-Dest: image"))
        ).head.status == 404
        assert [message.head.target for message in stage.upstream.seen] == ["/v2/me.json"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_page_of_the_proxys_own_may_use_it(browser: str, method: str) -> None:
    async with scene(browser) as stage:
        await stage.tab.open(stage.url("http://localhost:{proxy}/_slproxy/status.json"))
        read = await stage.fetch("/v2/people.json", method=method, headers={"X-Custom": "1"})
        assert (read.status, read.body) == (200, PROFILE.decode())
        assert [message.head.method for message in stage.upstream.seen] == [method]
        await shared_with_nobody(stage)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("name", "method", "headers", "body", "asks"),
    [
        pytest.param("app.test", "GET", {}, None, False, id="GET"),
        pytest.param("app.test", "HEAD", {}, None, False, id="HEAD"),
        pytest.param("app.test", "GET", {"X-Custom": "1"}, None, True, id="GET with a header of its own"),
        pytest.param("app.test", "POST", {}, "a", False, id="POST of text"),
        pytest.param("app.test", "POST", {**JSON, "X-Custom": "1"}, '{"a": 1}', True, id="POST of JSON"),
        pytest.param("app.test", "PUT", JSON, '{"a": 1}', True, id="PUT"),
        pytest.param("app.test", "PATCH", JSON, '{"a": 1}', True, id="PATCH"),
        pytest.param("app.test", "DELETE", {}, None, True, id="DELETE"),
        pytest.param("localhost", "GET", {}, None, False, id="GET from another port of localhost"),
        pytest.param("localhost", "POST", JSON, '{"a": 1}', True, id="POST of JSON from another port of localhost"),
    ],
)
async def test_a_page_of_an_allowed_origin_may(
    browser: str, name: str, method: str, headers: dict[str, str], body: str | None, asks: bool
) -> None:
    origin = f"http://{name}:{{pages}}"
    async with scene(browser, allow=("https://other.test", origin)) as stage:
        await stage.tab.open(stage.url(origin))
        url = "http://localhost:{proxy}/v2/people.json?page=2"
        read = await stage.fetch(url, method=method, headers=headers, **({} if body is None else {"body": body}))
        assert (read.status, read.body) == (200, "" if method == "HEAD" else PROFILE.decode())

        (sent,) = stage.upstream.seen
        assert (sent.head.method, sent.head.target) == (method, "/v2/people.json?page=2")
        assert sent.body.decode() == (body or "")
        assert [sent.head.get(name) for name in headers] == list(headers.values())

        assert [heard.request.head.method for heard in stage.tap.heard] == (["OPTIONS"] if asks else []) + [method]
        for heard in stage.tap.heard:
            assert heard.answer is not None
            answer = heard.answer.head
            assert answer.all("Access-Control-Allow-Origin") == [stage.url(origin)]
            assert answer.all("Access-Control-Allow-Credentials") == []
            assert "Origin" in answer.all("Vary")


async def test_a_browser_asks_once_and_remembers(browser: str) -> None:
    async with scene(browser, allow=("http://app.test:{pages}",)) as stage:
        await stage.tab.open(stage.url("http://app.test:{pages}"))
        for _ in range(3):
            assert (await stage.fetch("http://localhost:{proxy}/v2/people/1.json", method="DELETE")).status == 200
        assert [heard.request.head.method for heard in stage.tap.heard] == ["OPTIONS", "DELETE", "DELETE", "DELETE"]


async def test_an_allowed_page_reads_the_headers_that_tell_of_budget_and_retries(browser: str) -> None:
    busy = reply("503 Service Unavailable", b"busy", "Retry-After: 7", "X-RateLimit-Remaining-Minute: 598")
    async with scene(
        browser, script=replies(busy, reply("200 OK", b"{}", 'ETag: "1"'), busy), allow=("http://app.test:{pages}",)
    ) as stage:
        await stage.tab.open(stage.url("http://app.test:{pages}"))
        cured = await stage.fetch("http://localhost:{proxy}/v2/me.json")
        told = cured.headers
        assert (cured.status, told["x-slproxy-attempts"], told["etag"]) == (200, "2", '"1"')

        passed_on = await stage.fetch("http://localhost:{proxy}/v2/me.json", headers={"X-Slproxy-Retry": "off"})
        told = passed_on.headers
        assert (passed_on.status, told["retry-after"], told["x-ratelimit-remaining-minute"]) == (503, "7", "598")


async def hang_up(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    ("target", "init", "status", "problem"),
    [
        pytest.param("/v1/people.json", {}, 404, "not-found", id="a path that is not forwarded"),
        pytest.param("/v2/a%00b", {}, 400, "bad-target", id="a target that is refused"),
        pytest.param("/v2/people.json", {"method": "POST", "body": "{}"}, 405, "method-refused", id="read-only mode"),
        pytest.param("/v2/me.json", {}, 502, "upstream-unreachable", id="a fault of the upstream"),
        pytest.param("/_slproxy/nothing", {}, 404, "not-found", id="no page of the proxy"),
    ],
)
async def test_an_allowed_page_reads_why_the_proxy_refuses(
    browser: str, target: str, init: dict[str, object], status: int, problem: str
) -> None:
    async with scene(browser, script=hang_up, allow=("http://app.test:{pages}",), read_only=True) as stage:
        await stage.tab.open(stage.url("http://app.test:{pages}"))
        read = await stage.fetch("http://localhost:{proxy}" + target, **init)
        assert (read.status, json.loads(read.body)["type"]) == (status, problem)
        assert read.headers["proxy-status"].startswith("slproxy; error=")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"X-Slproxy-Key": LOCAL_KEY}, 200, id="in its own header"),
        pytest.param({"Authorization": f"Bearer {LOCAL_KEY}"}, 200, id="as a bearer"),
        pytest.param({"X-Slproxy-Key": "wrong"}, 401, id="wrong"),
        pytest.param({}, 401, id="not at all"),
    ],
)
async def test_an_allowed_page_needs_the_local_key_and_its_preflight_does_not(
    browser: str, headers: dict[str, str], status: int
) -> None:
    async with scene(browser, allow=("http://app.test:{pages}",), key=LOCAL_KEY) as stage:
        await stage.tab.open(stage.url("http://app.test:{pages}"))
        read = await stage.fetch("http://localhost:{proxy}/v2/people.json", method="PUT", headers=headers)
        assert read.status == status
        assert read.body == PROFILE.decode() if status == 200 else json.loads(read.body)["type"] == "key-required"
        assert len(stage.upstream.seen) == (1 if status == 200 else 0)


async def test_an_allowed_page_that_sends_cookies_reads_nothing(browser: str) -> None:
    # No Access-Control-Allow-Credentials: what a cookie jar adds is not what the page's author chose to send.
    async with scene(browser, allow=("http://app.test:{pages}",)) as stage:
        await stage.tab.open(stage.url("http://app.test:{pages}"))
        assert await stage.fetch("http://localhost:{proxy}/v2/me.json", credentials="include") == NOTHING


@pytest.mark.parametrize(("name", "works"), [("app.test", True), ("evil.test", False)])
async def test_on_the_internet_only_a_page_of_an_allowed_origin_may(chrome: Browser, name: str, works: bool) -> None:
    """An https page of a public address, as most are; Chromium asks its user before one may reach this machine.

    https://developer.chrome.com/blog/local-network-access: the test says yes in the user's place, through DevTools.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(name).configure_cert(tls)
    origin = f"https://{name}:{chrome.public_port}"
    async with scene(
        chrome.address, allow=(f"https://app.test:{chrome.public_port}",), page_port=chrome.public_port, tls=tls
    ) as stage:
        await stage.tab.open(origin)
        await stage.tab.may_reach_this_machine(origin)
        read = await stage.fetch("http://localhost:{proxy}/v2/people.json", method="PUT", headers=JSON, body="{}")
        if works:
            assert (read.status, read.body) == (200, PROFILE.decode())
            assert [heard.request.head.method for heard in stage.tap.heard] == ["OPTIONS", "PUT"]
        else:
            await refused(stage, read.body)


# The preflight, byte by byte.


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8642"])
@pytest.mark.parametrize("origin", ["https://app.test", "http://localhost:3000"])
async def test_a_preflight_is_answered_by_the_proxy_to_the_letter(origin: str, host: str) -> None:
    async with ScriptedUpstream(profile) as upstream:
        listen = ListenSettings(
            port=0, allow_origins=("https://app.test", "http://localhost:3000"), key=Secret(LOCAL_KEY)
        )
        async with proxy(replace(settings_for(upstream.url), listen=listen)) as app:
            asking = get(
                "/v2/people/1.json",
                f"Origin: {origin}",
                "Access-Control-Request-Method: PUT",
                "Access-Control-Request-Headers: content-type,x-custom,x-slproxy-key",
                "Access-Control-Request-Private-Network: true",
                "Sec-Fetch-Mode: cors",
                "Sec-Fetch-Site: cross-site",
                method="OPTIONS",
                host=host,
            )
            answer = await raw(app.urls[0], asking, method="HEAD")  # a 204 has no body
            assert upstream.connections == 0
    head = answer.head
    assert head.status == 204
    assert head.all("Content-Length") == []  # RFC 9110 §8.6
    assert head.all("Access-Control-Allow-Origin") == [origin]
    assert head.all("Vary") == ["Origin"]
    methods = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}
    assert set((head.get("Access-Control-Allow-Methods") or "").split(", ")) == methods
    named = (head.get("Access-Control-Allow-Headers") or "").lower().replace(" ", "").split(",")
    assert {"content-type", "x-custom", "x-slproxy-key"} <= set(named)
    assert head.all("Access-Control-Allow-Private-Network") == ["true"]
    assert 0 < int(head.get("Access-Control-Max-Age") or 0) <= 86400
    assert head.all("Access-Control-Allow-Credentials") == []


@pytest.mark.parametrize(
    "origin",
    ["https://evil.test", "null", "*", "https://app.test.evil.test", "https://app.test:8443", "http://app.test"],
)
@pytest.mark.parametrize("allow", [(), ("https://app.test",)], ids=["none is listed", "another is listed"])
async def test_a_preflight_of_another_origin_is_refused(origin: str, allow: tuple[str, ...]) -> None:
    asking = get("/v2/me.json", f"Origin: {origin}", "Access-Control-Request-Method: GET", method="OPTIONS")
    async with ScriptedUpstream(profile) as upstream:
        settings = replace(settings_for(upstream.url), listen=ListenSettings(port=0, allow_origins=allow))
        async with proxy(settings) as app:
            answer = await raw(app.urls[0], asking)
            assert upstream.connections == 0
    assert answer.head.status == 403
    assert json.loads(answer.body)["type"] == "origin-refused"
    assert not [name for name, _ in answer.head.fields if name.lower().startswith("access-control-")]
    assert answer.head.all("Vary") == (["Origin"] if allow else [])


@pytest.mark.parametrize("allow", [(), ("https://app.test",)], ids=["none is listed", "one is listed"])
@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        pytest.param("/v2/me.json", (), 200, id="of the upstream"),
        pytest.param("/v2/me.json", ("Sec-Fetch-Site: cross-site",), 403, id="to a page of another origin"),
        pytest.param("/v1/me.json", (), 404, id="to a path that is not forwarded"),
        pytest.param("/_slproxy/status.json", (), 200, id="of a page of the proxy"),
    ],
)
async def test_an_answer_without_an_origin_says_that_it_would_differ(
    allow: tuple[str, ...], target: str, headers: tuple[str, ...], status: int
) -> None:
    # Else a cache would give a page the answer that it kept of the address bar's, without leave to read (Fetch, CORS
    # protocol and HTTP caches).
    async with ScriptedUpstream(replies(reply("200 OK", PROFILE, "Vary: Accept-Encoding"))) as upstream:
        settings = replace(settings_for(upstream.url), listen=ListenSettings(port=0, allow_origins=allow))
        async with proxy(settings) as app:
            answer = await raw(app.urls[0], get(target, *headers))
    assert answer.head.status == status
    assert not [name for name, _ in answer.head.fields if name.lower().startswith("access-control-")]
    varies = answer.head.all("Vary")
    assert ("Origin" in varies) == bool(allow)
    assert ("Accept-Encoding" in varies) == (target == "/v2/me.json" and status == 200)
