"""Load: requests to a proxy for as long as a test wants, and what came of them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from slproxy.sandbox import Sandbox
from tests.support.raw_http import get, raw


@dataclass
class Load:
    """Asks one proxy again and again, GET and POST in turn, until the block ends; keeps what was answered.

    It does not wait for one reply before it sends the next request: a proxy that stands still is seen as one.
    """

    url: str
    every: float = 0.1
    posted: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _asking: set[asyncio.Task[None]] = field(default_factory=set)
    _running: asyncio.Task[None] | None = None

    @property
    def failed(self) -> dict[str, int]:
        return {answer: count for answer, count in self.answers.items() if answer != "200"}

    @property
    def served(self) -> int:
        return self.answers["200"]

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait({self._running})
        if self._asking:
            await asyncio.wait(self._asking)  # each of them is bounded

    async def _run(self) -> None:
        while True:
            task = asyncio.create_task(self.ask())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            await asyncio.sleep(self.every)

    async def ask(self) -> None:
        """Send the next request, and count what came of it."""
        number = next(self._numbers)
        request = get("/v2/me.json") if number % 2 else self._post(f"{id(self)}-{number}@race.example")
        try:
            reply = await raw(self.url, request)
        except (OSError, EOFError, TimeoutError) as error:
            self.answers[repr(error)] += 1
        else:
            status = reply.head.status
            self.answers["200" if status == 200 else f"{status} {reply.body.decode()}"] += 1

    def _post(self, address: str) -> bytes:
        self.posted.append(address)
        body = json.dumps({"email_address": address, "last_name": "Racer"}).encode()
        return get("/v2/people.json", "Content-Type: application/json", method="POST", body=body)


def carried_out(sandbox: Sandbox) -> Counter[str]:
    """Return how often each person was made."""
    return Counter(
        json.loads(request.body)["email_address"]
        for request in sandbox.requests
        if request.method == "POST" and request.status == 200
    )
