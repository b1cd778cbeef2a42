"""The sandbox's faults: how they are written, when they hit, and what the client then gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from aiohttp import ClientError, ClientPayloadError, ClientSession, TCPConnector

from slproxy.sandbox import FaultError, Sandbox, running
from slproxy.sandbox.limits.faults import ACCEPTED, Faults, Side, parse_fault
from tests.support.raw_http import port_of
from tests.support.sandboxes import bearer

REFRESH = {"grant_type": "refresh_token", "client_id": "sandbox-client", "client_secret": "sandbox-secret"}


@dataclass
class Caller:
    """Call a sandbox on a fresh connection each time, for a client repeats a request on a pooled one by itself."""

    session: ClientSession
    sandbox: Sandbox
    slept: list[float] = field(default_factory=list)

    async def get(self, fault: str | None = None, *, token: str | None = None, target: str = "/v2/me") -> int | str:
        """Return the status, or the name of the error."""
        headers = bearer(self.sandbox, token)
        headers |= {"X-Sandbox-Fault": fault} if fault else {}
        try:
            async with self.session.get(self.sandbox.url + target, headers=headers) as response:
                await response.read()
                return response.status
        except ClientError as error:
            return type(error).__name__

    async def refresh(self, token: str | None) -> int | str:
        """Return the status of a refresh, or the name of the error."""
        form = {**REFRESH, "refresh_token": token or ""}
        try:
            async with self.session.post(self.sandbox.url + "/oauth/token", data=form) as response:
                await response.read()
                return response.status
        except ClientError as error:
            return type(error).__name__


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with running(sleep=sleep) as sandbox, ClientSession(connector=TCPConnector(force_close=True)) as session:
        yield Caller(session, sandbox, slept)


@pytest.mark.parametrize(
    ("text", "name", "value", "times", "retry_after"),
    [
        ("status=503", "status", 503, None, None),
        ("status=429;retry-after=7;times=2", "status", 429, 2, "7"),
        (" status=503 ; times=3 ", "status", 503, 3, None),
        ("status=503;retry-after=Wed, 21 Oct 2026 07:28:00 GMT", "status", 503, None, "Wed, 21 Oct 2026 07:28:00 GMT"),
        ("slow=0.5", "slow", 0.5, None, None),
        ("reset;times=1", "reset", 0, 1, None),
        ("expire-token", "expire-token", 0, None, None),
    ],
)
def test_a_fault_is_parsed_as_it_is_written(
    text: str, name: str, value: float, times: int | None, retry_after: str | None
) -> None:
    fault = parse_fault(text)
    assert (fault.name, fault.value, fault.times, fault.retry_after) == (name, value, times, retry_after)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "status",
        "status=",
        "status=99",
        "status=1000",
        "status=abc",
        "status=100",
        "status=503.5",
        "slow",
        "slow=-1",
        "slow=soon",
        "reset=1",
        "reset;times=0",
        "reset;times=-1",
        "reset;times=x",
        "reset;retry-after=1",
        "status=503;retry-after=",
        "status=503;retry-after=1\r\nX: y",
        "reset;colour=red",
        "invalid_grant",
    ],
)
def test_a_fault_that_cannot_be_parsed_says_what_can(text: str) -> None:
    with pytest.raises(FaultError) as caught:
        parse_fault(text)
    assert caught.value.accepted == ACCEPTED["api"]


@pytest.mark.parametrize("side", ["api", "token"])
def test_everything_that_is_said_to_be_accepted_is(side: Side) -> None:
    for written in ACCEPTED[side]:
        assert (
            parse_fault(written.replace("NNN", "503").replace("SECONDS", "1"), side).name == written.partition("=")[0]
        )


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("status=503;times=2", [True, True, False, True, True, False]),
        ("status=503;times=1", [True, False, True, False]),
        ("status=503", [True, True, True]),
        ("expire-token", [True, False, True, False]),
        ("revoke-token;times=2", [True, True, False]),
    ],
)
def test_a_header_hits_n_times_then_lets_one_pass(text: str, pattern: Sequence[bool]) -> None:
    faults = Faults()
    for expected in pattern:
        struck = faults.fault_for(on="api", method="GET", target="/v2/me", header=text)
        assert (struck is not None) is expected


def test_counts_are_kept_by_method_target_and_text() -> None:
    faults = Faults()
    asked = [
        ("GET", "/v2/me", "reset;times=1"),
        ("PUT", "/v2/me", "reset;times=1"),
        ("GET", "/v2/me?x", "reset;times=1"),
        ("GET", "/v2/me", "status=503;times=1"),
    ]
    for expected in (True, False):
        for method, target, text in asked:
            assert (faults.fault_for(on="api", method=method, target=target, header=text) is not None) is expected


@pytest.mark.parametrize(
    ("path", "target", "struck"),
    [
        (None, "/v2/anything", True),
        ("/v2/people", "/v2/people?page=2", True),
        ("/v2/people", "/v2/people.json", True),
        ("/v2/people.json", "/v2/people/", True),
        ("/v2/people", "/v2/people/1", False),
    ],
)
def test_an_armed_fault_waits_for_its_path(path: str | None, target: str, struck: bool) -> None:
    faults = Faults()
    faults.arm("reset", on="api", path=path)
    assert faults.fault_for(on="token", method="GET", target=target, header=None) is None
    assert (faults.fault_for(on="api", method="GET", target=target, header=None) is not None) is struck
    assert bool(list(faults)) is not struck


async def test_a_status_fault_hits_as_often_as_it_says(caller: Caller) -> None:
    assert [await caller.get("status=503;times=2") for _ in range(4)] == [503, 503, 200, 503]
    assert [request.status for request in caller.sandbox.requests] == [503, 503, 200, 503]


async def test_a_status_fault_carries_retry_after_and_the_real_429_body(caller: Caller) -> None:
    headers = bearer(caller.sandbox) | {"X-Sandbox-Fault": "status=429;retry-after=7"}
    async with caller.session.get(caller.sandbox.url + "/v2/me", headers=headers) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "7"
        assert await response.json() == {"error": "API rate limit exceeded"}


async def test_html_500_is_html(caller: Caller) -> None:
    headers = bearer(caller.sandbox) | {"X-Sandbox-Fault": "html-500"}
    async with caller.session.get(caller.sandbox.url + "/v2/me", headers=headers) as response:
        assert (response.status, response.content_type) == (500, "text/html")


async def test_a_reset_comes_before_any_byte_of_the_reply(caller: Caller) -> None:
    # By hand, for aiohttp's client repeats a GET that was reset.
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(caller.sandbox.url))
    writer.write(
        f"GET /v2/me HTTP/1.1\r\nHost: h\r\nX-Sandbox-Fault: reset;times=1\r\n"
        f"Authorization: Bearer {caller.sandbox.options.api_key}\r\n\r\n".encode()
    )
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert [request.status for request in caller.sandbox.requests] == [None]
    assert await caller.get("reset;times=1") == 200


async def test_a_reset_in_mid_body_comes_after_the_headers_and_some_of_the_body(caller: Caller) -> None:
    headers = bearer(caller.sandbox) | {"X-Sandbox-Fault": "reset-mid-body"}
    async with caller.session.get(caller.sandbox.url + "/v2/people", headers=headers) as response:
        assert response.status == 200
        assert await response.content.readexactly(10) == b'{"data": ['
        with pytest.raises(ClientPayloadError):
            await response.read()


async def test_a_slow_answer_waits_first(caller: Caller) -> None:
    assert await caller.get("slow=12.5") == 200
    assert caller.slept == [12.5]


@pytest.mark.parametrize(("fault", "refreshed"), [("expire-token", 200), ("revoke-token", 400)])
async def test_a_token_is_ended_once_so_that_a_replay_succeeds(fault: str, refreshed: int, caller: Caller) -> None:
    pair = caller.sandbox.issue()
    assert await caller.get(fault, token=pair.access_token) == 401
    assert await caller.get(token=pair.access_token) == 401
    assert await caller.refresh(pair.refresh_token) == refreshed
    assert await caller.get(fault, token=caller.sandbox.issue().access_token) == 200


async def test_a_burst_that_loses_its_token_together_is_cured_by_one_new_token(caller: Caller) -> None:
    old, new = caller.sandbox.issue(), caller.sandbox.issue()
    assert [await caller.get("expire-token", token=old.access_token) for _ in range(3)] == [401, 401, 401]
    assert [await caller.get("expire-token", token=new.access_token) for _ in range(3)] == [200, 200, 200]
    assert await caller.get("expire-token", token=new.access_token) == 401


async def test_a_header_that_cannot_be_parsed_is_400_and_says_what_is_accepted(caller: Caller) -> None:
    headers = bearer(caller.sandbox) | {"X-Sandbox-Fault": "explode"}
    async with caller.session.get(caller.sandbox.url + "/v2/me", headers=headers) as response:
        assert response.status == 400
        body = await response.json()
    assert "explode" in body["error"]
    assert body["accepted"] == list(ACCEPTED["api"])


async def test_an_armed_fault_hits_the_next_request_only(caller: Caller) -> None:
    caller.sandbox.fault("status=502")
    caller.sandbox.fault("status=503;times=2", path="/v2/people")
    assert [await caller.get() for _ in range(2)] == [502, 200]
    assert [await caller.get(target="/v2/people?page=1") for _ in range(3)] == [503, 503, 200]
    caller.sandbox.fault("status=504")
    caller.sandbox.clear_faults()
    assert await caller.get() == 200


@pytest.mark.parametrize(
    ("fault", "answered", "committed"),
    [
        ("invalid_grant", 400, False),
        ("invalid_client", 401, False),
        ("unauthorized_client", 400, False),
        ("status=503", 503, False),
        ("html-200", 200, False),
        ("down", "ServerDisconnectedError", False),
        ("lost", "ServerDisconnectedError", True),
        ("slow=3", 200, True),
        ("slow-before=3", 200, True),
    ],
)
async def test_a_token_fault_either_commits_or_changes_nothing(
    fault: str, answered: int | str, committed: bool, caller: Caller
) -> None:
    pair = caller.sandbox.issue()
    caller.sandbox.fault(fault, on="token")
    assert await caller.get() == 200, "the API is not hit"
    assert await caller.refresh(pair.refresh_token) == answered
    assert (await caller.get(token=pair.access_token) == 401) is committed
    assert caller.slept == ([3.0] if "slow" in fault else [])


@pytest.mark.parametrize(("fault", "alive_while_waiting"), [("slow=3", False), ("slow-before=3", True)])
async def test_a_slow_renewal_has_committed_before_it_waits_and_slow_before_has_not(
    fault: str, alive_while_waiting: bool
) -> None:
    async with ClientSession(connector=TCPConnector(force_close=True)) as session:
        seen: list[int | str] = []

        async def sleep(_: float) -> None:
            seen.append(await caller.get(token=pair.access_token))

        async with running(sleep=sleep) as sandbox:
            caller = Caller(session, sandbox)
            pair = sandbox.issue()
            sandbox.fault(fault, on="token")
            assert await caller.refresh(pair.refresh_token) == 200
            assert seen == [200 if alive_while_waiting else 401]
