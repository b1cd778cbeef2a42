"""The token in use: who holds it, when it is renewed, and what becomes of it when that fails.

1. One renewal at a time, across tasks (one shared task) and processes (the store's lock). After the lock the store is
   read again: what another process put there is used, not renewed once more.
2. A renewed token is in the store before it is first used: SalesLoft has revoked the old refresh token by then.
3. A renewal runs apart from the request that asked for it. A client that leaves, a deadline or SIGTERM cannot cancel
   it between the reply and the write.
4. ``invalid_grant`` is final until a new login. Any other failure keeps the token and is tried again later; a token
   that is still valid stays in use.
5. The token of the moment is taken at each send, and who was rejected says with which token, so that whoever used an
   older one gets the newer one without another renewal.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from slproxy.auth.grants import GrantSelection, TokenEndpoint, select_grant
from slproxy.auth.oauth import Form, TokenEndpointReply
from slproxy.config import AuthSettings
from slproxy.errors import (
    CredentialsRefused,
    LoginRequired,
    Problem,
    StaleWriteError,
    StoreError,
    TokenEndpointDown,
)
from slproxy.observe import Observer, Renewal
from slproxy.store import MemoryStore, Record, Token, TokenStore

log = logging.getLogger("slproxy.auth")

# A renewal that did not cure a 401 is not repeated for this long (docs/contract.md, Cure): the 401 has another reason.
UNCURED_PAUSE = 30.0
# Refused credentials change only when a person changes them; asking more often would lock an account.
REFUSED_PAUSE = 10.0
# Between failed renewals: doubling from the first to the last, in seconds.
FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0
# How a renewal ended that another process had made.
TAKEN_OVER = "taken over from another process"
# How often the clock and, without a token, the store are looked at: a laptop sleeps, a person logs in elsewhere.
GLANCE, GLANCE_WITHOUT_TOKEN = 30.0, 2.0


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token to send once, and its generation: how often the login was renewed."""

    token: str = field(repr=False)
    generation: int


@dataclass(frozen=True, slots=True)
class _Cure:
    """What a renewal after a 401 came to, and when: its token was rejected as well (``failed``), or is on trial."""

    token: str = field(repr=False)
    at: float
    failed: bool = False


def renewal_margin(token: Token, *, leeway: float, given: bool, jitter: float) -> float:
    """Return how long before its expiry a token is renewed, in seconds.

    Unless the leeway was ``given``, at most a twentieth of a short life, so that there are hardly more renewals than
    lives: each one is a chance to lose a race. Else what leaves some of it. Up to a quarter more by ``jitter`` (uniform
    in [0, 1)), so that replicas which started together do not renew together.
    """
    life = token.lifetime
    margin = min(leeway, 0.8 * life if given else life / 20)
    return min(margin * (1 + jitter / 4), 0.9 * life)


def _same(one: Record, other: Record) -> bool:
    """Tell whether two records hold the same token, whatever else was noted about it since.

    Generations do not tell: a logout and a login begin to count again.
    """
    return (one.token.access_token, one.token.refresh_token) == (other.token.access_token, other.token.refresh_token)


def _no_credentials() -> LoginRequired:
    return LoginRequired(
        "No credentials are set.",
        hint="Set SALESLOFT_API_KEY, or SALESLOFT_CLIENT_ID and SALESLOFT_CLIENT_SECRET and run: slproxy login",
    )


def _refused(record: Record) -> LoginRequired:
    return LoginRequired(f"SalesLoft no longer accepts the stored login: {record.refused}.", hint="Run: slproxy login")


def _no_login() -> LoginRequired:
    return LoginRequired("There is no login of this client.", hint="Run: slproxy login")


class Credentials:
    """The one owner of the token in use."""

    def __init__(
        self,
        *,
        auth: AuthSettings,
        accounts_url: str,
        profile: str,
        redirect_uri_is_set: bool,
        leeway_is_set: bool,
        store: TokenStore,
        observer: Observer,
        post_form: Callable[[Form], Awaitable[TokenEndpointReply]],
        now: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._auth = auth
        self._accounts_url = accounts_url
        self._profile = profile
        self._redirect_uri_given, self._leeway_given = redirect_uri_is_set, leeway_is_set
        self._login_store = store
        self._observer = observer
        self._granted_store = MemoryStore()
        self._endpoint = TokenEndpoint(
            auth, post_form=post_form, now=now, monotonic=monotonic, sleep=sleep, jitter=jitter
        )
        self._now, self._monotonic, self._sleep, self._dice = now, monotonic, sleep, jitter

        self.selection = GrantSelection(None, "not looked at yet")
        self._record: Record | None = None
        self._margin = 0.0
        # Why the token in hand is not in the store; None when it is.
        self._unsaved: str | None = None
        # A renewal was not begun, since it could not have been kept and the token was still valid.
        self._put_off = False
        self._renewal: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._failure: Problem | None = None
        self._failures = 0
        self._not_before = -math.inf
        # The token in hand, where the upstream has rejected it and it could not be replaced.
        self._rejected: str | None = None
        # The token that our last renewal after a 401 brought; and that renewal, where it has not cured or is on trial.
        self._brought: str | None = None
        self._cure: _Cure | None = None
        self._glanced_at = -math.inf
        self._renewals = 0
        self._last_renewal: dict[str, object] | None = None

    async def load(self) -> None:
        """Read the store and choose the way in. Raises StoreError when what is there cannot be trusted."""
        # Who needs no login is not stopped by what became of an old one.
        needs_none = self._auth.grant in ("api_key", "client_credentials") or (
            self._auth.grant == "auto" and self._auth.api_key is not None
        )
        self._take_up(None if needs_none else await self._stored_login())

    def keep_fresh(self) -> None:
        """Start renewing in the background, until ``close``."""
        if self.selection.grant != "api_key":
            self._keeper = asyncio.create_task(self._keep_fresh(), name="slproxy: keep the token fresh")

    async def close(self) -> None:
        """Stop; a renewal under way is finished and written first."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        for task in (self._saving, self._renewal):
            if task is not None:
                await asyncio.wait({task})
        await self._save()

    async def bearer(self) -> Bearer:
        """Return the token of the moment; wait for a renewal only if it has expired.

        Raises:
            TokenUnavailable: there is none to be had; one of its subclasses says why.
        """
        if (held := self._held()) is not None:
            return held
        await self._renew_shared()
        if (held := self._held()) is not None:
            return held
        raise self.problem() or _no_login()

    async def renew(self, *, stale: Bearer) -> Bearer:
        """Return a token newer than ``stale``, which the upstream rejected, renewing once for all who saw it rejected.

        Returns ``stale`` itself where a renewal would not help: an API key, or a renewal that has just not cured.

        Raises:
            TokenUnavailable: the renewal failed.
        """
        if self.selection.grant == "api_key":
            return stale
        if self._is_current(stale):
            if self._has_not_cured(stale):
                return stale
            await self._renew_shared(rejected=stale.token)
            if self._is_current(stale):
                if self._failure is None and self._held() is not None:
                    self.mark_ineffective(stale)
                    return stale  # renewed, and the same token came back: the 401 is the client's to have
                self._rejected = stale.token
                self._wake.set()
                raise self.problem() or _no_login()
        return await self.bearer()

    def mark_verified(self, bearer: Bearer) -> None:
        """Take note that the upstream took a token, whatever it said of it before: the renewal has cured."""
        if bearer.token == self._rejected:
            self._rejected = None
        if self._cure is not None and self._cure.token == bearer.token and not self._cure.failed:
            self._cure = None

    def mark_ineffective(self, bearer: Bearer) -> None:
        """Take note that the upstream rejected a token that had just been renewed."""
        if bearer.token == self._brought and not self._has_not_cured(bearer):
            self._cure = _Cure(bearer.token, self._monotonic(), failed=True)

    def mark_unverified(self, bearer: Bearer) -> None:
        """Take note that nobody will see whether the renewal that brought this token has cured: the next one will."""
        if bearer.token == self._brought and not self._has_not_cured(bearer):
            self._cure = _Cure(bearer.token, self._monotonic())

    def _has_not_cured(self, rejected: Bearer) -> bool:
        """Tell whether a rejected token is what a renewal has just brought, in vain or on trial.

        What was seen to be rejected a second time stays so, whoever else is served with it.
        """
        cure = self._cure
        return cure is not None and cure.token == rejected.token and self._monotonic() - cure.at < UNCURED_PAUSE

    def problem(self) -> Problem | None:
        """Return why no token can be had, or ``None`` when one can.

        One that the upstream has rejected does not count, though it goes on being sent: the upstream may err, or reject
        it for some requests only.
        """
        if self._is_good():
            return None
        if not self.selection.is_backed_by(self._auth):
            return _no_credentials()
        if self._failure is not None:
            # A copy: raising one object again and again would make its traceback grow for ever.
            failure = copy.copy(self._failure)
            if isinstance(failure, TokenEndpointDown):
                failure.headers = self._retry_after()
            return failure
        if self.selection.grant == "authorization_code" and self._record is None:
            return _no_login()
        return TokenEndpointDown(
            "No token has been granted yet, or it has just expired.",
            hint="Wait for the token endpoint to answer.",
            headers=self._retry_after(),
        )

    def _retry_after(self) -> tuple[tuple[str, str], ...]:
        return (("Retry-After", str(math.ceil(max(1.0, self._not_before - self._monotonic())))),)

    @property
    def warning(self) -> str | None:
        """What a person should know although the token can be used: that it would not survive this process."""
        return None if self._unsaved is None else f"The newest token is only in memory. {self._unsaved}"

    async def settled(self) -> None:
        """Wait until no renewal and no write is under way."""
        tasks = {task for task in (self._renewal, self._saving) if task is not None}
        if tasks:
            await asyncio.wait(tasks)

    @property
    def is_settled(self) -> bool:
        """Whether the token in hand is in the store, and nothing is about to change it."""
        return self._unsaved is None and all(task is None or task.done() for task in (self._renewal, self._saving))

    def snapshot(self) -> dict[str, object]:
        """Return what may be told about the token; nothing in it is secret."""
        record = self._record
        expires_at = record.token.expires_at if record is not None else None
        return {
            "grant": self.selection.grant,
            "why": self.selection.why,
            "store": "none" if self.selection.grant == "api_key" else self._store.description,
            "encryption": self._store.encryption if record is not None else None,
            "saved": self._unsaved is None,
            "valid": self._is_good(),
            "expires_in": None if expires_at is None else round(expires_at - self._now(), 3),
            "age": None if record is None else round(self._now() - record.token.obtained_at, 3),
            "generation": record.generation if record is not None else None,
            "user_id": record.user_id if record is not None else None,
            "team_id": record.team_id if record is not None else None,
            "renewals": self._renewals,
            "last_renewal": self._last_renewal,
        }

    # The token in hand.

    def _is_current(self, bearer: Bearer) -> bool:
        return self._record is not None and self._record.token.access_token == bearer.token

    def _held(self) -> Bearer | None:
        """Return the token in hand, if it has not expired."""
        if self.selection.grant == "api_key" and self._auth.api_key is not None:
            return Bearer(self._auth.api_key.reveal(), 0)
        record = self._record
        if record is None or (record.token.expires_at is not None and record.token.expires_at <= self._now()):
            return None
        return Bearer(record.token.access_token, record.generation)

    def _is_good(self) -> bool:
        """Tell whether there is a token in hand that has neither expired nor been rejected for good."""
        return (held := self._held()) is not None and held.token != self._rejected

    def _take_up(self, record: Record | None) -> None:
        """Choose the way in, now that it is known whether there is a login."""
        self.selection = select_grant(
            self._auth, login_stored=record is not None, redirect_uri_is_set=self._redirect_uri_given
        )
        if self.selection.grant == "authorization_code" and record is not None:
            self._adopt(record)

    def _adopt(self, record: Record) -> None:
        self._record = record
        if record.token.access_token != self._rejected:
            self._rejected = None
        self._margin = renewal_margin(
            record.token, leeway=self._auth.leeway, given=self._leeway_given, jitter=self._dice()
        )
        self._failure = None
        if record.refused:
            self._failure = _refused(record)

    @property
    def _store(self) -> TokenStore:
        return self._login_store if self.selection.grant == "authorization_code" else self._granted_store

    async def _stored_login(self) -> Record | None:
        """Return the stored login, if it is this client's."""
        record = await self._login_store.read()
        return record if record is not None and self._is_ours(record) else None

    def _is_ours(self, record: Record) -> bool:
        return record.belongs_to(self._auth.client_id or "", self._accounts_url, self._profile)

    # Renewal.

    async def _renew_shared(self, *, rejected: str | None = None) -> None:
        """Wait for the one renewal under way, or start it. Its failure is in ``problem`` afterwards."""
        if self._renewal is None or self._renewal.done():
            if isinstance(self._failure, LoginRequired) or self._record is None:
                await self._look_for_a_login()
                if (found := self._held()) is not None and found.token != rejected:
                    return
            # What was put off while the token was valid is not put off any longer once it has expired.
            too_soon = self._monotonic() < self._not_before and not (self._put_off and self._held() is None)
            if too_soon and ((held := self._held()) is None or held.token == rejected):
                await self._glance_at_the_store()
            if too_soon or isinstance(self._failure, LoginRequired):
                return
        # Asked again: there was an await, and another task may have started it meanwhile.
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(rejected), name="slproxy: renew the token")
        renewal = self._renewal
        # Not awaited itself: a client that leaves would cancel it for everybody, and lose the rotated token.
        await asyncio.wait({renewal})
        renewal.result()

    async def _look_for_a_login(self) -> None:
        """Adopt a login that somebody made since (`slproxy login` beside a running proxy)."""
        if self.selection.grant == "api_key" or self._auth.grant == "client_credentials":
            return
        try:
            record = await self._stored_login()
        except StoreError as error:
            self._failure = LoginRequired(error.detail, hint=error.hint)
            return
        mine = self._record
        if record is not None and (mine is None or not (_same(record, mine) or record.is_older_than(mine))):
            self._take_up(record)
            self._not_before = -math.inf

    async def _glance_at_the_store(self) -> None:
        """Adopt what another process renewed while this one pauses after a failure."""
        if self._monotonic() - self._glanced_at < FIRST_PAUSE:
            return
        self._glanced_at = self._monotonic()
        try:
            record = await self._stored_login()
        except StoreError as error:
            log.warning("%s %s", error.detail, error.hint)
            return
        mine = self._record
        if record is not None and mine is not None and mine.is_older_than(record):
            self._take_up(record)
            self._not_before = -math.inf

    async def _renew(self, rejected: str | None) -> None:
        """Renew under the store's lock, and remember how it went. Never raises what it can remember."""
        if not self.selection.is_backed_by(self._auth) or (
            self.selection.grant == "authorization_code" and self._record is None
        ):
            return
        started = self._now()
        renewal = Renewal(reason="expiry" if rejected is None else "rejected", began=self._monotonic())
        for tell in self._observer.renewal_began:
            tell(renewal)
        try:
            renewal.outcome = await self._renew_locked(rejected)
        except (Problem, StoreError) as error:
            renewal.outcome = error.detail
            self._remember(error)
            # The system's own words help; another library's may quote what it was given.
            cause = f" ({error.__cause__})" if isinstance(error.__cause__, OSError) else ""
            log.warning("renewing the token failed: %s %s%s", error.detail, error.hint, cause)
        else:
            self._failure, self._failures, self._not_before, self._rejected = None, 0, -math.inf, None
            if rejected is not None and self._record is not None and renewal.outcome != TAKEN_OVER:
                self._brought = self._record.token.access_token
            log.info("token %s", renewal.outcome)
        finally:
            self._last_renewal = {"at": started, "outcome": renewal.outcome}
            renewal.ended = self._monotonic()
            for tell in self._observer.renewal_ended:
                tell(renewal)

    async def _renew_locked(self, rejected: str | None) -> str:
        store = self._store
        async with store.lock():
            if self.selection.grant == "authorization_code":
                record = await self._newest()
                if record is None:
                    self._record = self._unsaved = None
                    raise _no_login()
                if record.refused:
                    self._adopt(record)
                    raise _refused(record)
                expires_at = record.token.expires_at
                alive = expires_at is None or expires_at - self._margin > self._now()
                if alive and (self._record is None or not _same(record, self._record)):
                    self._adopt(record)
                    return TAKEN_OVER
                await self._check_that_it_can_be_kept(record, rejected=rejected)
            else:
                record = await store.read()
            record = await self._granted(record, store, rejected=rejected)
            try:
                await self._write(record)
            except StaleWriteError:
                # Another process brought a newer one meanwhile, though the lock was ours; or it had expired.
                record = await self._stored_login() or record
            finally:
                self._adopt(record)
            self._renewals += 1
            return "renewed"

    async def _newest(self) -> Record | None:
        """Return the newer of the stored login and the one in hand, which is then stored; under the lock.

        The store is behind where the last write failed, or where it has lost what it held: a folder that vanished, a
        Redis that came back empty or from an old snapshot. ``None`` is a logout, or another client's login.
        """
        try:
            stored = await self._store.read()
        except StoreError as error:
            if not await self._store.was_wiped():
                raise
            log.warning("%s %s", error.detail, error.hint)
            stored = None
        mine = self._record
        if stored is not None and not self._is_ours(stored):
            return None
        if mine is None or (stored is not None and not stored.is_older_than(mine)):
            self._unsaved = None
            return stored
        if stored is None and not await self._store.was_wiped():
            return None
        try:
            await self._write(mine)
        except StaleWriteError:
            return await self._stored_login()
        return mine

    async def _write(self, record: Record) -> None:
        """Store a record; where that fails it is all there is, and in memory is better than lost.

        Raises StaleWriteError: what is stored is newer.
        """
        try:
            await self._store.write(record)
        except StaleWriteError:
            self._unsaved = None
            raise
        except StoreError as error:
            self._unsaved = error.detail
            self._wake.set()
            log.error(  # noqa: TRY400  # the hint says more than a traceback
                "%s The newest token is only in memory. %s", error.detail, error.hint
            )
        else:
            self._unsaved = None

    async def _check_that_it_can_be_kept(self, record: Record, *, rejected: str | None) -> None:
        """Write what is in the store once more before its refresh token is spent.

        Where that fails, the renewed token would be in this process's memory alone. A proxy that goes on running, and
        has no valid token left, takes that chance; everybody else waits. Raises StoreError.
        """
        if self._unsaved is not None:
            return
        self._put_off = False
        try:
            await self._login_store.write(record)
        except StaleWriteError:
            raise  # read again after a pause, and used: what is in hand has been spent
        except StoreError:
            if self._keeper is None or (self._held() is not None and rejected is None):
                self._put_off = True
                raise

    async def _save(self) -> None:
        """Write the renewed token that could not be written, unless something newer took its place meanwhile."""
        if self._unsaved is None or self._record is None:
            return
        try:
            async with self._store.lock():
                record = await self._newest()
                if record is None:
                    self._record = self._unsaved = None
                elif not _same(record, self._record):
                    self._adopt(record)
        except StoreError as error:
            self._unsaved = error.detail
            log.warning("%s The newest token is still only in memory. %s", error.detail, error.hint)

    async def _granted(self, record: Record | None, store: TokenStore, *, rejected: str | None) -> Record:
        """Ask the token endpoint for the next token."""
        if self.selection.grant == "client_credentials":
            token = await self._endpoint.client_credentials()
            fresh = Record(
                client_id=self._auth.client_id or "",
                accounts_url=self._accounts_url,
                profile=self._profile,
                token=token,
            )
            return fresh if record is None else record.renewed(token)
        assert record is not None, "a login is renewed only when there is one"
        try:
            return record.renewed(await self._endpoint.refresh(record.token))
        except LoginRequired:
            # Final: no start of any process shall try this refresh token again. An access token that the API has
            # rejected as well is over, whatever its expiry says; one that it has not may still be good.
            token = record.token
            if token.access_token == rejected:
                token = replace(token, expires_at=self._now())
            self._record = replace(record, token=token, refused="invalid_grant")
            try:
                await store.write(self._record)
            except StaleWriteError:
                # Not dead but renewed: by a process that hung with the lock, and woke up.
                if (newer := await self._stored_login()) is not None and not newer.refused:
                    return newer
            except StoreError as error:
                log.warning("%s That the login is refused is only in memory. %s", error.detail, error.hint)
            raise

    def _remember(self, error: Problem | StoreError) -> None:
        """Keep a failure for those who ask next, and do not try again too soon."""
        if isinstance(error, StoreError):
            error = TokenEndpointDown(error.detail, hint=error.hint)
        self._failures += 1
        pause = min(FIRST_PAUSE * 2.0 ** (self._failures - 1), LAST_PAUSE)
        if isinstance(error, CredentialsRefused):
            pause = REFUSED_PAUSE
        elif isinstance(error, TokenEndpointDown):
            pause = max(pause, error.again_in)
        self._not_before = self._monotonic() + pause
        self._failure = error

    async def _keep_fresh(self) -> None:
        """Renew before it matters; write what could not be written; look for a login where there is none."""
        while True:
            try:
                if self._unsaved is not None:
                    # A task of its own, as a renewal is: `close` cancels this one, and waits for that.
                    self._saving = asyncio.create_task(self._save(), name="slproxy: write the token")
                    await asyncio.wait({self._saving})
                if self._renewal_due_in() <= 0.0:
                    await self._renew_shared(rejected=self._rejected)
            except Exception:
                # The outermost frame of this task: without it a defect would end the renewals, and say nothing.
                log.exception("a defect in slproxy, while keeping the token fresh")
            await self._pause(self._until_next_glance())

    async def _pause(self, seconds: float) -> None:
        """Wait, but for no longer than until there is something to be written."""
        self._wake.clear()
        waits = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._wake.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    def _renewal_due_in(self) -> float:
        if self._record is None or self._rejected is not None:
            return 0.0
        if self._record.token.expires_at is None:
            return math.inf
        return self._record.token.expires_at - self._margin - self._now()

    def _until_next_glance(self) -> float:
        due = self._renewal_due_in()
        if due > 0.0:
            return min(due, GLANCE if self._unsaved is None else GLANCE_WITHOUT_TOKEN)
        return max(GLANCE_WITHOUT_TOKEN, min(self._not_before - self._monotonic(), GLANCE))
