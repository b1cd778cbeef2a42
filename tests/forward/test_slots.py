"""What one send takes is given back, wherever it fails: its connection, its reply and its place in the budget."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, replace

import pytest

from slproxy.config import AuthSettings, Secret
from slproxy.config.schema import RetrySettings
from tests.support.clock import FakeTime
from tests.support.pacing import Line
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, raw, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import SOON

CLIENT_CREDENTIALS = AuthSettings(grant="client_credentials", client_id="id", client_secret=Secret("secret"))


@dataclass
class FailingTime(FakeTime):
    """A clock whose so-manieth look fails, once."""

    fails_in: int = -1

    def look(self) -> float:
        self.fails_in -= 1
        if self.fails_in == 0:
            raise RuntimeError("a defect")
        return self.now


@pytest.mark.parametrize("status", ["200 OK", "503 Service Unavailable"])
async def test_whatever_fails_once_a_reply_is_there_leaves_nothing_taken(status: str) -> None:
    """The clock fails at the first look after the reply came, at the second, and so on, until no look is left."""
    time = FailingTime()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/v2/fails":
            time.fails_in = next(looks)
            # Not whole yet: a connection is given back by itself once all of a reply has come.
            writer.write(reply(status, b"{}", "Content-Length: 10000", "Retry-After: 1", length=False))
        else:
            writer.write(reply())

    looks = itertools.count(1)
    async with ScriptedUpstream(script) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(
            settings,
            upstream=replace(settings.upstream, max_connections=1),
            retry=RetrySettings(attempts=2),
        )
        clock = replace(time.clock(), now=time.look)
        async with proxy(settings, clock=clock) as app:
            line, failures = Line(app), 0
            for _ in range(20):
                try:
                    answer = await raw(app.urls[0], get("/v2/fails", "Connection: close"), timeout=0.5)
                    failures += answer.head.status == 500
                except TimeoutError:  # it waits for the rest of the reply, as it should
                    pass
                has_failed, time.fails_in = time.fails_in <= 0, -1
                assert (await raw(app.urls[0], get("/v2/me"), timeout=SOON)).head.status == 200
                assert line.budget["in_flight"] == 0
                if not has_failed:
                    break
            assert failures


async def test_the_second_send_after_a_401_has_no_more_time_than_the_repeat_that_it_belongs_to() -> None:
    """A repeat ends with `retry.deadline`, and the last reply of SalesLoft's is the answer."""

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target.startswith("/oauth"):
            token = f'{{"access_token": "token-{next(number)}", "token_type": "bearer", "expires_in": 7200}}'
            writer.write(reply(body=token.encode()))
            return
        match len([each for each in upstream.seen if each.head.target == "/v2/a"]):
            case 1:
                writer.write(reply("503 Service Unavailable", b"{}"))
            case 2:
                writer.write(reply("401 Unauthorized", b"{}"))
            case _:
                await reader.read()

    number = itertools.count(1)
    async with ScriptedUpstream(script) as upstream:
        settings = replace(settings_for(upstream.url), auth=CLIENT_CREDENTIALS, retry=RetrySettings(deadline=1.0))
        async with proxy(settings) as app:
            answer = await raw(app.urls[0], get("/v2/a"), timeout=SOON)
    assert (answer.head.status, answer.head.get("X-Slproxy-Attempts")) == (503, "3")
