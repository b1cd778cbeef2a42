"""A scripted upstream, a proxy with an API key before it, and the clients of that proxy."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from slproxy.app import App
from slproxy.config import ClientSettings, LimitSettings, ListenSettings
from slproxy.config.schema import PolicySettings
from tests.support.clock import FakeTime
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Head, Message, port_of, raw
from tests.support.scripted import Handler, ScriptedUpstream
from tests.support.waiting import SOON

LOCAL_KEY = "local-key-7f3a"
NO_CLIENTS: Mapping[str, ClientSettings] = {}


@dataclass
class Clients:
    """The clients of one proxy; their connections are closed with it, however a test ends."""

    app: App
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def urls(self) -> list[str]:
        return self.app.urls


@asynccontextmanager
async def pair(
    script: Handler | None = None,
    *,
    whole: bool = True,
    policy: PolicySettings | None = None,
    limits: LimitSettings | None = None,
    listen: ListenSettings | None = None,
    clients: Mapping[str, ClientSettings] = NO_CLIENTS,
    response_timeout: float = 60.0,
    idle_timeout: float = 60.0,
) -> AsyncIterator[tuple[ScriptedUpstream, Clients]]:
    """Run an upstream that follows ``script``, and a proxy with an API key before it; waits cost no time."""
    async with ScriptedUpstream(script, whole=whole) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(
            settings,
            policy=policy or settings.policy,
            limits=limits or settings.limits,
            listen=listen or settings.listen,
            clients=clients,
            upstream=replace(settings.upstream, response_timeout=response_timeout, idle_timeout=idle_timeout),
        )
        async with proxy(settings, clock=FakeTime().clock()) as app:
            there = Clients(app)
            try:
                yield upstream, there
            finally:
                for writer in there.writers:
                    await close(writer)


def problem(message: Message, *, status: int, kind: str) -> dict[str, object]:
    """Hold a reply to the shape of the proxy's own errors, and return its document."""
    assert message.head.status == status, message.body
    assert message.head.get("Content-Type") == "application/problem+json"
    assert re.match(r"slproxy; error=[a-z_]+", message.head.get("Proxy-Status") or "")
    document = json.loads(message.body)
    assert isinstance(document, dict)
    assert document["type"].rsplit("/", 1)[-1] == kind
    assert document["status"] == status
    for name in ("title", "detail", "hint", "error"):
        assert isinstance(document[name], str), name
        assert document[name], name
    assert API_KEY not in message.body.decode()
    return document


async def opened(clients: Clients) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(clients.urls[0]), limit=2**20)
    clients.writers.append(writer)
    return reader, writer


async def asked(url: str, request: bytes, *, method: str = "GET") -> Message:
    return await raw(url, request, method=method, timeout=SOON)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def lines_of(head: Head) -> list[str]:
    """Return the header lines of a reply, less what docs/contract.md, Answer, adds."""
    added = ("via", "server-timing", "ratelimit-policy", "ratelimit", "x-slproxy-attempts", "x-request-id")
    return [line for line in head.raw.decode().split("\r\n")[1:] if line and line.split(":")[0].lower() not in added]
