"""The token in use: when it is renewed, and what many who ask at a time get."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest

from slproxy.auth import Bearer, Credentials, Form, TokenEndpointReply
from slproxy.auth.grants import GrantSelection
from slproxy.auth.schedule import FIRST_PAUSE, REFUSED_PAUSE
from slproxy.config import AuthSettings, Secret
from slproxy.errors import CredentialsRefused, LoginRequired, StoreError, TokenEndpointDown, UpstreamUnreachable
from slproxy.observe import Listener, Observer, Renewal, TokenEvent
from slproxy.store import MemoryStore, Record, Token
from tests.support.clock import FakeTime

ACCOUNTS = "https://accounts.test"
SECRET = Secret("s")


@dataclass
class Accounts:
    """A token endpoint in a few lines, for what needs no socket: it answers what it is told, after ``go`` is set."""

    answers: list[TokenEndpointReply | Exception] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def post_form(self, form: Form) -> TokenEndpointReply:
        self.asked.append(dict(form.fields))
        await self.go.wait()
        answer = self.answers.pop(0) if self.answers else granted(len(self.asked) + 1)
        if isinstance(answer, Exception):
            raise answer
        return answer


def granted(number: int) -> TokenEndpointReply:
    body = {"access_token": f"access-{number}", "refresh_token": f"refresh-{number}", "expires_in": 7200}
    return TokenEndpointReply(status=200, headers={}, body=json.dumps(body).encode())


def refused(error: str, status: int = 400) -> TokenEndpointReply:
    return TokenEndpointReply(status=status, headers={}, body=f'{{"error":"{error}"}}'.encode())


def login(*, expires_in: float = 7200.0, refused: str = "", time: FakeTime) -> Record:
    token = Token(
        access_token="access-1", refresh_token="refresh-1", obtained_at=time.now, expires_at=time.now + expires_in
    )
    return Record(client_id="c", accounts_url=ACCOUNTS, token=token, refused=refused)


class Disk(MemoryStore):
    """A store whose disk can be full or lost, or not answer."""

    full = lost = down = False

    async def stamp(self) -> object:
        if self.down:
            raise StoreError("It does not answer.", hint="Look why.")
        return await super().stamp()

    async def was_wiped(self) -> bool:
        return self.lost

    async def write(self, record: Record) -> None:
        if self.full:
            raise StoreError("No space left.", hint="Make room.")
        await super().write(record)


@dataclass
class Scene:
    accounts: Accounts
    store: Disk
    time: FakeTime
    credentials: Credentials


async def scene(
    record: Record | None,
    time: FakeTime,
    *answers: TokenEndpointReply | Exception,
    auth: AuthSettings | None = None,
    listener: Listener | None = None,
) -> Scene:
    accounts, store = Accounts(list(answers)), Disk(record)
    accounts.go.set()
    clock = time.clock()

    async def sleep(seconds: float) -> None:
        task = asyncio.current_task()
        if task is not None and "keep the token fresh" in task.get_name():
            await asyncio.Event().wait()  # its second turn never comes
        await clock.sleep(seconds)

    auth = auth or AuthSettings(client_id="c", client_secret=SECRET, grant="authorization_code")
    credentials = Credentials(
        auth=auth,
        api_key_from="env SALESLOFT_API_KEY",
        owner=replace(login(time=time).owner, client_id=auth.client_id or ""),
        redirect_uri_is_set=False,
        leeway_is_set=False,
        store=store,
        observer=Observer([listener] if listener else []),
        post_form=accounts.post_form,
        now=clock.now,
        monotonic=clock.monotonic,
        sleep=sleep,
        jitter=clock.jitter,
    )
    await credentials.load()
    return Scene(accounts, store, time, credentials)


async def test_a_valid_token_is_used_without_asking() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time)
    assert await it.credentials.bearer() == Bearer("access-1", 1)
    assert it.accounts.asked == []


async def test_many_who_find_the_token_expired_share_one_renewal() -> None:
    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time)
    it.accounts.go.clear()
    asking = [asyncio.create_task(it.credentials.bearer()) for _ in range(50)]
    for _ in range(5):
        await asyncio.sleep(0)
    it.accounts.go.set()
    assert {bearer.token for bearer in await asyncio.gather(*asking)} == {"access-2"}
    assert len(it.accounts.asked) == 1


async def test_who_is_cancelled_while_it_waits_does_not_cancel_the_renewal() -> None:
    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time)
    it.accounts.go.clear()
    leaving, staying = (asyncio.create_task(it.credentials.bearer()) for _ in range(2))
    while not it.accounts.asked:
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    it.accounts.go.set()
    assert (await staying).token == "access-2"
    assert len(it.accounts.asked) == 1


async def test_a_rejected_token_is_renewed_once_and_an_older_one_gets_the_newer() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time)
    first = await it.credentials.bearer()
    second = await it.credentials.renew(stale=first)
    assert second.token == "access-2"
    assert await it.credentials.renew(stale=first) == second
    assert len(it.accounts.asked) == 1


async def test_what_another_process_put_there_is_used_and_not_renewed_again() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time)
    theirs = Token(access_token="theirs", refresh_token="r", obtained_at=time.now, expires_at=time.now + 7200)
    await it.store.write(login(time=time).renewed(theirs))
    assert (await it.credentials.renew(stale=await it.credentials.bearer())).token == "theirs"
    assert it.accounts.asked == []


async def test_what_is_found_in_the_store_just_when_a_renewal_begins_is_not_renewed_again() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time)
    stale = await it.credentials.bearer()
    theirs = Token(access_token="theirs", refresh_token="r", obtained_at=time.now, expires_at=time.now + 7200)
    await it.store.write(login(time=time).renewed(theirs))
    renewing = asyncio.create_task(it.credentials.renew(stale=stale))
    it.credentials.keep_fresh()  # which looks at the store before the renewal has the lock
    assert (await renewing).token == "theirs"
    assert it.accounts.asked == []
    await it.credentials.close()


async def test_what_another_process_put_there_is_renewed_where_it_is_due_as_well() -> None:
    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time)
    theirs = Token(access_token="theirs", refresh_token="r", obtained_at=time.now, expires_at=time.now - 1.0)
    await it.store.write(login(time=time).renewed(theirs))
    assert await it.credentials.bearer() == Bearer("access-2", 3)
    assert [form["refresh_token"] for form in it.accounts.asked] == ["r"]


async def test_in_the_pause_after_a_failure_another_processs_token_is_used_and_ends_the_pause() -> None:
    time = FakeTime()
    page = TokenEndpointReply(status=200, headers={}, body=b"<html>")
    it = await scene(login(time=time, expires_in=-1.0), time, *[page] * 3)
    for pause in (FIRST_PAUSE, 2 * FIRST_PAUSE, 0.0):
        with pytest.raises(TokenEndpointDown):
            await it.credentials.bearer()
        time.now += pause
    theirs = Token(access_token="theirs", refresh_token="r", obtained_at=time.now, expires_at=time.now + 7200)
    await it.store.write(login(time=time).renewed(theirs))
    time.now += FIRST_PAUSE
    assert await it.credentials.bearer() == Bearer("theirs", 2)
    assert len(it.accounts.asked) == 3
    assert (await it.credentials.renew(stale=Bearer("theirs", 2))).token == "access-5"


async def test_a_login_that_the_store_has_lost_is_stored_again_and_one_that_was_logged_out_is_not() -> None:
    for lost in (True, False):
        time = FakeTime()
        it = await scene(login(time=time, expires_in=-1.0), time)
        await it.store.delete()
        it.store.lost = lost
        if lost:
            assert (await it.credentials.bearer()).token == "access-2"
        else:
            with pytest.raises(LoginRequired, match="Not logged in"):
                await it.credentials.bearer()
        assert (await it.store.read() is not None) is lost


async def test_an_ineffective_renewal_is_not_repeated_within_30_seconds() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time)
    newer = await it.credentials.renew(stale=await it.credentials.bearer())
    it.credentials.mark_ineffective(newer)
    assert await it.credentials.renew(stale=newer) == newer
    time.now += 30.0
    assert await it.credentials.renew(stale=newer) != newer
    assert len(it.accounts.asked) == 2


async def test_invalid_grant_is_final_and_remembered_on_disk_until_a_new_login() -> None:
    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time, refused("invalid_grant"))
    for _ in range(3):
        with pytest.raises(LoginRequired):
            await it.credentials.bearer()
    assert len(it.accounts.asked) == 1
    kept = await it.store.read()
    assert kept is not None
    assert (kept.refused, kept.token.refresh_token) == ("invalid_grant", "refresh-1")
    token = Token(access_token="again", refresh_token="r", obtained_at=time.now, expires_at=time.now + 7200)
    await it.store.write(kept.renewed(token))
    assert (await it.credentials.bearer()).token == "again"


async def test_a_token_that_was_rejected_and_cannot_be_renewed_is_over_for_every_process() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time, refused("invalid_grant"))
    with pytest.raises(LoginRequired):
        await it.credentials.renew(stale=await it.credentials.bearer())
    assert isinstance(it.credentials.problem(), LoginRequired)
    other = await scene(await it.store.read(), time)
    with pytest.raises(LoginRequired):
        await other.credentials.bearer()
    assert len(it.accounts.asked) + len(other.accounts.asked) == 1


@pytest.mark.parametrize(
    ("answer", "problem", "pause"),
    [
        (refused("invalid_client", 401), CredentialsRefused, REFUSED_PAUSE),
        (TokenEndpointReply(status=200, headers={}, body=b"<html>"), TokenEndpointDown, FIRST_PAUSE),
    ],
    ids=["refused credentials", "a page instead of a token"],
)
async def test_a_failed_renewal_is_not_repeated_at_once(
    answer: TokenEndpointReply, problem: type[Exception], pause: float
) -> None:
    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time, answer)
    for _ in range(3):
        with pytest.raises(problem):
            await it.credentials.bearer()
    assert len(it.accounts.asked) == 1
    time.now += pause
    assert (await it.credentials.bearer()).token == "access-3"


async def test_a_rejected_token_that_could_not_be_replaced_is_renewed_though_nobody_asks_for_it() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time, refused("invalid_client", 401))
    with pytest.raises(CredentialsRefused):
        await it.credentials.renew(stale=await it.credentials.bearer())
    assert isinstance(it.credentials.problem(), CredentialsRefused)
    time.now += REFUSED_PAUSE
    it.credentials.keep_fresh()
    while it.credentials.problem() is not None:
        await asyncio.sleep(0)
    assert await it.credentials.bearer() == Bearer("access-3", 2)
    await it.credentials.close()
    assert len(it.accounts.asked) == 2


async def test_a_rejected_token_that_the_token_endpoint_gives_again_is_asked_for_no_more() -> None:
    time = FakeTime()
    same = b'{"access_token":"access-1","token_type":"bearer","expires_in":7200}'
    it = await scene(
        login(time=time), time, refused("invalid_client", 401), TokenEndpointReply(status=200, headers={}, body=same)
    )
    stale = await it.credentials.bearer()
    with pytest.raises(CredentialsRefused):
        await it.credentials.renew(stale=stale)
    time.now += REFUSED_PAUSE
    assert await it.credentials.renew(stale=stale) == stale
    problem = it.credentials.problem()
    assert problem is not None
    assert (problem.type, "(401)" in problem.detail) == ("credentials-refused", True)


async def test_a_lost_reply_is_asked_for_once_more_with_the_same_refresh_token() -> None:
    time = FakeTime()
    lost = UpstreamUnreachable("lost", maybe_sent=True)
    it = await scene(login(time=time, expires_in=-1.0), time, lost, granted(2))
    assert (await it.credentials.bearer()).token == "access-2"
    assert [form["refresh_token"] for form in it.accounts.asked] == ["refresh-1", "refresh-1"]


async def test_a_token_endpoint_that_was_away_for_1500_ms_fails_no_renewal() -> None:
    """With the worst of dice."""
    time = FakeTime(die=0.0)
    away = [UpstreamUnreachable("away", maybe_sent=False)] * 3
    it = await scene(login(time=time, expires_in=-1.0), time, *away, granted(2))
    since = time.now
    assert (await it.credentials.bearer()).token == "access-2"
    assert time.now - since >= 1.5


async def test_a_command_does_not_spend_the_refresh_token_when_the_disk_is_full() -> None:
    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time)
    it.store.full = True
    with pytest.raises(TokenEndpointDown, match="No space left"):
        await it.credentials.bearer()
    assert it.accounts.asked == []


async def test_a_proxy_on_a_full_disk_goes_on_in_memory_and_writes_when_there_is_room() -> None:
    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time)
    it.store.full = True
    it.credentials.keep_fresh()
    assert (await it.credentials.bearer()).token == "access-2"
    assert it.credentials.snapshot()["saved"] is False
    it.store.full = False
    await it.credentials.close()
    kept = await it.store.read()
    assert kept is not None
    assert kept.token.refresh_token == "refresh-2"


async def test_a_newer_login_is_not_overwritten_by_a_token_that_could_not_be_written() -> None:
    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time)
    it.store.full = True
    it.credentials.keep_fresh()
    await it.credentials.bearer()
    it.store.full = False
    theirs = Token(access_token="theirs", refresh_token="r", obtained_at=time.now, expires_at=time.now + 7200)
    newer = login(time=time).renewed(theirs)
    await it.store.write(newer)
    await it.credentials.close()
    assert await it.store.read() == newer


async def test_a_token_only_in_memory_survives_another_process_that_found_the_stored_one_dead() -> None:
    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time)
    it.store.full = True
    it.credentials.keep_fresh()
    await it.credentials.bearer()
    it.store.full = False
    await it.store.write(login(time=time, expires_in=-2.0, refused="invalid_grant"))
    await it.credentials.close()
    kept = await it.store.read()
    assert kept is not None
    assert (kept.token.refresh_token, kept.refused) == ("refresh-2", "")


async def test_a_new_login_of_the_same_generation_is_taken_over_and_not_spent() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time)
    stale = await it.credentials.bearer()
    token = Token(access_token="again", refresh_token="r", obtained_at=time.now, expires_at=time.now + 7200)
    await it.store.write(replace(login(time=time), token=token))  # a logout, and a login: the count begins anew
    assert (await it.credentials.renew(stale=stale)).token == "again"
    assert it.accounts.asked == []


async def test_a_login_that_another_process_found_refused_is_not_tried_again() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time)
    await it.store.write(replace(login(time=time), refused="invalid_grant"))
    with pytest.raises(LoginRequired):
        await it.credentials.renew(stale=await it.credentials.bearer())
    assert it.accounts.asked == []


async def test_a_dead_login_that_cannot_be_marked_on_disk_is_asked_for_once() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time, refused("invalid_grant"))
    it.credentials.keep_fresh()
    stale = await it.credentials.bearer()
    it.store.full = True
    for _ in range(3):
        with pytest.raises(LoginRequired):
            await it.credentials.renew(stale=stale)
    with pytest.raises(LoginRequired):
        await it.credentials.bearer()
    await it.credentials.close()
    assert len(it.accounts.asked) == 1


async def test_a_reply_that_leaves_the_refresh_token_out_keeps_the_old_one() -> None:
    time = FakeTime()
    body = b'{"access_token":"access-2","token_type":"bearer","expires_in":7200}'
    it = await scene(login(time=time, expires_in=-1.0), time, TokenEndpointReply(status=200, headers={}, body=body))
    await it.credentials.bearer()
    kept = await it.store.read()
    assert kept is not None
    assert kept.token.refresh_token == "refresh-1"


async def test_client_credentials_never_touch_the_stored_login() -> None:
    time = FakeTime()
    auth = AuthSettings(grant="client_credentials", client_id="c", client_secret=SECRET)
    it = await scene(login(time=time), time, auth=auth)
    assert (await it.credentials.bearer()).token == "access-2"
    assert await it.store.read() == login(time=time)
    assert it.accounts.asked[0]["grant_type"] == "client_credentials"


async def test_a_login_that_is_stored_beside_client_credentials_changes_no_grant() -> None:
    time = FakeTime()
    it = await scene(None, time, auth=AuthSettings(client_id="c", client_secret=SECRET))
    granted = await it.credentials.bearer()
    await it.store.write(login(time=time))
    it.credentials.keep_fresh()
    for _ in range(20):
        await asyncio.sleep(0)
    assert await it.credentials.bearer() == granted
    assert it.credentials.selection.grant == "client_credentials"
    await it.credentials.close()


async def test_a_login_that_is_stored_while_client_credentials_fail_changes_no_grant() -> None:
    time = FakeTime()
    down = [refused("server_error", 500)] * 9
    it = await scene(None, time, *down, auth=AuthSettings(client_id="c", client_secret=SECRET))
    await it.store.write(login(time=time))
    with pytest.raises(TokenEndpointDown):
        await it.credentials.bearer()
    assert it.credentials.selection.grant == "client_credentials"


@pytest.mark.parametrize("refusal", ["invalid_grant", ""], ids=["a refused login", "no login"])
async def test_why_a_login_is_needed_is_not_the_store_once_it_answers_again(refusal: str) -> None:
    time = FakeTime()
    it = await scene(login(time=time, refused=refusal, expires_in=-1) if refusal else None, time)
    before = it.credentials.problem()
    assert before is not None
    it.store.down = True
    with pytest.raises(LoginRequired) as caught:
        await it.credentials.bearer()
    assert caught.value.detail == "It does not answer."
    it.store.down = False
    with pytest.raises(LoginRequired) as caught:
        await it.credentials.bearer()
    assert (caught.value.detail, caught.value.hint) == (before.detail, before.hint)


async def test_a_logout_that_is_found_when_a_token_is_stored_again_is_told() -> None:
    told: list[str] = []

    class Events(Listener):
        def token_event(self, event: TokenEvent) -> None:
            told.append(event.kind)

    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time, listener=Events())
    it.store.full = True
    it.credentials.keep_fresh()
    await it.credentials.bearer()
    it.store.full = False
    await it.store.delete()
    await it.credentials.close()
    assert told == ["logout"]


async def test_a_logout_is_followed_and_told_though_the_newest_token_is_only_in_memory() -> None:
    class Events(Listener):
        told: ClassVar[list[str]] = []

        def token_event(self, event: TokenEvent) -> None:
            self.told.append(event.kind)

    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time, listener=Events())
    it.store.full = True
    it.credentials.keep_fresh()
    await it.credentials.bearer()
    assert it.credentials.snapshot()["saved"] is False
    await it.store.delete()
    while it.credentials.current() is not None:
        await asyncio.sleep(0)
    assert Events.told == ["logout"]
    assert it.credentials.warning is None
    await it.credentials.close()
    assert await it.store.read() is None


async def test_a_jump_of_the_clock_costs_one_renewal() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time)
    time.now += 3600 * 3
    for _ in range(5):
        await it.credentials.bearer()
    time.now -= 3600 * 3
    for _ in range(5):
        await it.credentials.bearer()
    assert len(it.accounts.asked) == 1


async def test_a_login_of_another_client_is_not_used() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time, auth=AuthSettings(grant="authorization_code", client_id="other"))
    with pytest.raises(LoginRequired):
        await it.credentials.bearer()
    assert it.accounts.asked == []


async def test_what_is_told_of_a_token_holds_nothing_secret() -> None:
    time = FakeTime()
    it = await scene(login(time=time), time)
    told = repr((it.credentials.snapshot(), await it.credentials.bearer(), await it.store.read()))
    assert "access-1" not in told
    assert "refresh-1" not in told
    assert it.credentials.selection == GrantSelection("authorization_code", "set by auth.grant")


async def test_a_listener_that_fails_costs_no_renewal() -> None:
    class Fails(Listener):
        def renewal_began(self, renewal: Renewal) -> None:
            raise ZeroDivisionError

        def renewal_ended(self, renewal: Renewal) -> None:
            raise ZeroDivisionError

    time = FakeTime()
    it = await scene(login(time=time, expires_in=-1.0), time, listener=Fails())
    it.accounts.go.set()
    assert (await it.credentials.bearer()).generation == 2
