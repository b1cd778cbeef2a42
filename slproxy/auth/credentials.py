"""Credentials: the one owner of the token in use, which it renews in time, and after a 401.

1. One renewal at a time, across tasks (one shared task) and processes (the store's lock). After the lock the store is
   read again: what another process put there is used, not renewed once more.
2. A renewed token is in the store before it is first used: SalesLoft has revoked the old refresh token by then.
3. A renewal runs apart from the request that asked for it. A client that leaves, a deadline or SIGTERM cannot cancel
   it between the reply and the write.
4. ``invalid_grant`` is final until a new login. Any other failure keeps the token and is tried again later; a token
   that is still valid stays in use.
5. The token is read at each send. A caller that got a 401 passes the token it used: if that is an older one, it gets
   the newer one without another renewal.

``schedule`` decides when to renew and ``verdict`` whether a renewal was of use; ``renewer`` makes one renewal, and
``stored_login`` finds the newest of the store's login and ours.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial

from slproxy.auth.acceptance import Acceptance
from slproxy.auth.grants import GrantSelection, needs_no_login, select_grant
from slproxy.auth.oauth import Form
from slproxy.auth.refresher import Refresher
from slproxy.auth.renewer import Renewer
from slproxy.auth.schedule import FIRST_PAUSE, Backoff, poll_interval
from slproxy.auth.stored_login import StoredLogin
from slproxy.auth.token_endpoint import TokenEndpoint
from slproxy.auth.token_events import TokenEvents
from slproxy.auth.token_in_use import Bearer, TokenInUse
from slproxy.auth.token_reply import TokenEndpointReply
from slproxy.auth.unavailable import no_credentials, no_token_yet, not_logged_in, refusal_of, token_rejected
from slproxy.auth.verdict import Verdict
from slproxy.config import AuthSettings
from slproxy.errors import LoginRequired, Problem, StoreError, TokenEndpointDown, UnwritableError
from slproxy.observe import RENEWED, Exchange, Observer
from slproxy.store import MemoryStore, Owner, Record, TokenStore

log = logging.getLogger("slproxy.auth")


class Credentials:
    """The token in use. Times are in seconds, ``now`` is Unix time, ``jitter`` is uniform in [0, 1)."""

    def __init__(
        self,
        *,
        auth: AuthSettings,
        api_key_from: str,
        owner: Owner,
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
        self._auth, self._observer = auth, observer
        self._grant_for = partial(
            select_grant, auth, redirect_uri_is_set=redirect_uri_is_set, api_key_from=api_key_from
        )
        self._now, self._monotonic = now, monotonic
        self._events = TokenEvents(observer, where=store.description, monotonic=monotonic)
        self._login = StoredLogin(store, owner)
        # What client credentials were granted is asked for again after a start.
        self._granted = StoredLogin(MemoryStore(), owner)
        self._endpoint = TokenEndpoint(
            auth, post_form=post_form, now=now, monotonic=monotonic, sleep=sleep, jitter=jitter
        )
        self._refresher = Refresher(self._refresh, interval=self._poll_interval, sleep=sleep)

        self.selection = GrantSelection(None, "not loaded yet")
        self._in_use = TokenInUse(leeway=auth.leeway, leeway_is_set=leeway_is_set, jitter=jitter())
        # For those who must not show them.
        self.secrets = self._in_use.secrets
        self._verdict, self._acceptance = Verdict(), Acceptance()
        self._failure: Problem | None = None
        self._backoff = Backoff()
        self._polled_at = -math.inf
        self._renewal: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._renewals = 0
        self._last_renewal: dict[str, object] | None = None

    async def load(self, *, had_login: bool = False) -> None:
        """Read the store and select the grant; ``had_login``: as is known already. Raises StoreError, of damage too."""
        # Whoever needs no login is not stopped by what became of an old one.
        record = None if (needs_none := needs_no_login(self._auth)) else await self._login.read()
        if self._auth.grant == "auto" and not needs_none:
            had_login = await self._login.store.had_login() or had_login
        self._select_grant(record, had_login=had_login)
        self._events.begin_with(self._in_use.record)

    @property
    def login(self) -> int | None:
        """Which login is in use, by when it was made; ``None``: none is."""
        return None if (record := self._record_of_login()) is None else record.login

    def _record_of_login(self) -> Record | None:
        return self._in_use.record if self.selection.grant == "authorization_code" else None

    def keep_fresh(self) -> None:
        """Start renewing in the background, until ``close``."""
        if self.selection.grant != "api_key":
            self._refresher.start()

    async def close(self) -> None:
        """Stop; a renewal under way is finished and written first."""
        await self._refresher.stop()
        await self.settled()
        await self._save()

    # What each request asks.

    def current(self) -> Bearer | None:
        """Return the token of the moment, unless it has expired, or there is none."""
        in_use = self._in_use
        return in_use.bearer if in_use.bearer is not None and self._now() < in_use.expires_at else None

    async def bearer(self, exchange: Exchange | None = None) -> Bearer:
        """Return the token of the moment; wait for a renewal only if it has expired, which ``exchange`` is told.

        Raises TokenUnavailable: there is none to be had; one of its subclasses says why.
        """
        if self._in_use.valid(self._now()) is None:
            await self._renew_shared(exchange)
        if (bearer := self._in_use.valid(self._now())) is not None:
            return bearer
        raise self.problem() or not_logged_in(self._login.foreign, hint=self.selection.login_hint)

    async def renew(self, *, stale: Bearer, is_check: bool = False, exchange: Exchange | None = None) -> Bearer:
        """Return a token newer than ``stale``, which the API rejected, renewing once for all who saw it rejected.

        Returns ``stale`` itself where a renewal would not help: an API key, a renewal that was just ineffective, or a
        check of a token that is known to be rejected.

        Raises TokenUnavailable: the renewal failed.
        """
        if (
            is_check
            or self.selection.grant == "api_key"
            or (self._in_use.is_in_use(stale) and self._verdict.forbids_renewal(stale.token, now=self._monotonic()))
        ):
            self._mark_rejected(stale, is_check=is_check)
            return stale
        if self._in_use.is_in_use(stale):
            await self._renew_shared(exchange, rejected=stale.token)
            if self._in_use.is_in_use(stale):
                if self._failure is None and self._in_use.valid(self._now()) is not None:
                    self.mark_ineffective(stale)
                    return stale  # renewed, and the same token came back: the 401 is the client's to have
                self._in_use.rejected = stale.token
                self._refresher.wake()
                raise self.problem() or not_logged_in(self._login.foreign, hint=self.selection.login_hint)
        return await self.bearer(exchange)

    def mark_verified(self, bearer: Bearer) -> None:
        """Note that the API accepted a token, whatever it said of it before."""
        if bearer.token == self._in_use.rejected:
            self._in_use.rejected = None
        if self._verdict.doubt is not None:
            self._verdict = self._verdict.verified(bearer.token)
        if self._acceptance.token:
            self._acceptance = self._acceptance.after_acceptance(bearer.token, now=self._monotonic())

    def _mark_rejected(self, bearer: Bearer, *, is_check: bool = False) -> None:
        """Note that the API rejected a token, and that no renewal has cured or could cure that."""
        was_known = self._acceptance.rejects(bearer.token)
        self._acceptance = self._acceptance.after_rejection(bearer.token, is_check=is_check, now=self._monotonic())
        if not was_known and self._acceptance.rejects(bearer.token):
            self._events.refused(self.selection.grant, token_rejected(self.selection.grant).detail)

    def mark_ineffective(self, bearer: Bearer) -> None:
        """Note that the API rejected a token that had just been renewed."""
        self._verdict = self._verdict.ineffective(bearer.token, now=self._monotonic())
        self._mark_rejected(bearer)

    def mark_unverified(self, bearer: Bearer) -> None:
        """Note that the request for which a token was renewed cannot be sent with it: the next one will tell."""
        self._verdict = self._verdict.unverified(bearer.token, now=self._monotonic())

    # What status and readiness ask.

    def problem(self) -> Problem | None:
        """Return why no token can be had, or ``None`` when one can.

        One that the API has rejected does not count, though it goes on being sent: the API may err, or reject it for
        some requests only.
        """
        if self._in_use.is_good(self._now()):
            return token_rejected(self.selection.grant) if self._is(self._acceptance.rejects) else None
        if not self.selection.is_backed_by(self._auth):
            return no_credentials(self._auth.grant)
        if self._failure is not None:
            # A copy: raising one object again and again would make its traceback grow for ever.
            failure = copy.copy(self._failure)
            if isinstance(failure, TokenEndpointDown):
                failure.headers = self._backoff.retry_after(self._monotonic())
            return failure
        if self.selection.grant == "authorization_code" and self._in_use.record is None:
            return not_logged_in(self._login.foreign, hint=self.selection.login_hint)
        return no_token_yet(self._backoff.retry_after(self._monotonic()))

    @property
    def needs_check(self) -> bool:
        """Whether the token in use was rejected, and a request of the proxy's own would tell more."""
        return self._is(self._acceptance.needs_check)

    def _is(self, known: Callable[[str], bool]) -> bool:
        """Tell whether something is known of the token in use."""
        return self._in_use.bearer is not None and known(self._in_use.bearer.token)

    @property
    def warning(self) -> str | None:
        """What a person should know although the token can be used: that it would not survive this process."""
        why = self._stored.unpersisted
        return why and f"The newest token is only in memory. {why}"

    async def settled(self) -> None:
        """Wait until no renewal and no write is under way."""
        if tasks := {task for task in (self._renewal, self._saving) if task is not None}:
            await asyncio.wait(tasks)

    @property
    def is_settled(self) -> bool:
        """Whether the token in use is in the store, and nothing is about to change it."""
        tasks = (self._renewal, self._saving)
        return self._stored.unpersisted is None and all(task is None or task.done() for task in tasks)

    def snapshot(self) -> dict[str, object]:
        """Return what may be told about the token; nothing in it is secret."""
        return {
            "grant": self.selection.grant,
            "why": self.selection.why,
            "store": None if self.selection.grant == "api_key" else self._stored.store.description,
            "encryption": self._stored.store.encryption if self._in_use.record is not None else None,
            "saved": self._stored.unpersisted is None,
            "valid": self._in_use.is_good(self._now()) and not self._is(self._acceptance.rejects),
            "rejected": self._is(self._acceptance.rejects),
            **self._in_use.snapshot(self._now()),
            "renewals": self._renewals,
            "last_renewal": self._last_renewal,
        }

    # The token in use.

    def _select_grant(self, record: Record | None, *, had_login: bool) -> None:
        """Select the grant, now that it is known whether there is a login, or was one."""
        self.selection = self._grant_for(login_stored=record is not None, had_login=had_login)
        if self.selection.grant == "api_key" and self._auth.api_key is not None:
            self._in_use.set_api_key(self._auth.api_key.reveal())
        elif self.selection.grant == "authorization_code" and record is not None:
            self._set_record(record)

    def _set_record(self, record: Record | None) -> None:
        self._in_use.set_record(record, now=self._now())
        self._failure = refusal_of(record)

    @property
    def _stored(self) -> StoredLogin:
        return self._granted if self.selection.grant == "client_credentials" else self._login

    # Renewal.

    async def _renew_shared(self, exchange: Exchange | None = None, *, rejected: str | None = None) -> None:
        """Wait for the one renewal under way, or start it. Its failure is in ``problem`` afterwards."""
        if (self._renewal is None or self._renewal.done()) and not await self._may_renew(rejected):
            return
        # Asked again: there was an await, and another task may have started it meanwhile.
        if self._renewal is None or self._renewal.done():
            renewing = self._renew(rejected, self._in_use.record)
            self._renewal = asyncio.create_task(renewing, name="slproxy: renew the token")
        renewal = self._renewal
        # Not awaited itself: a client that leaves would cancel it for everybody, and lose the rotated token.
        with self._observer.waiting(exchange, "token", self._monotonic):
            await asyncio.wait({renewal})
        renewal.result()

    async def _may_renew(self, rejected: str | None) -> bool:
        """Tell whether to renew now; look for another process's token first where a renewal would fail again."""
        if isinstance(self._failure, LoginRequired) or self._in_use.record is None:
            await self._follow_store()
            if self._in_use.is_usable(self._now(), rejected=rejected):
                return False
        too_soon = self._backoff.forbids_renewal(expired=self._in_use.valid(self._now()) is None, now=self._monotonic())
        # A store that is down may take seconds to say so: not everybody waits for that.
        may_ask = self._monotonic() - self._polled_at >= FIRST_PAUSE
        if too_soon and may_ask and not self._in_use.is_usable(self._now(), rejected=rejected):
            self._polled_at = self._monotonic()
            await self._follow_store()
        return not too_soon and not isinstance(self._failure, LoginRequired)

    async def _follow_store(self) -> None:
        """Use what others have made of the login: `slproxy login`, `slproxy logout`, another process's renewal."""
        if needs_no_login(self._auth) or self.selection.grant == "client_credentials":
            return
        try:
            record = await self._login.look(self._record_of_login)
        except StoreError as error:
            if isinstance(self._failure, LoginRequired) or self._in_use.record is None:
                self._failure = LoginRequired(error.detail, hint=error.hint)
            return
        if record is None and self._record_of_login() is not None:
            self._set_record(None)
            log.warning("%s", not_logged_in(self._login.foreign, hint=self.selection.login_hint).sentence)
        elif record is not None and not self._in_use.has_the_token_of(record):
            self._select_grant(record, had_login=True)
        else:
            self._failure = refusal_of(record) if isinstance(self._failure, LoginRequired) else self._failure
            return  # the store, if that was the reason, answers again
        self._login.unpersisted, self._backoff = None, Backoff()
        self._events.found(self.selection.grant, self._in_use.record)

    async def _renew(self, rejected: str | None, due: Record | None) -> None:
        """Renew under the store's lock, and remember how it went. Never raises what it can remember."""
        needs_login = self.selection.grant == "authorization_code" and due is None
        if needs_login or not self.selection.is_backed_by(self._auth):
            return
        started = self._now()
        with self._events.renewal("expiry" if rejected is None else "rejected") as renewal:
            renewal.outcome = await self._outcome_of_renewal(rejected, due)
            self._last_renewal = {"at": started, "outcome": renewal.outcome}
        self._events.found(self.selection.grant, self._in_use.record)

    async def _outcome_of_renewal(self, rejected: str | None, due: Record | None) -> str:
        try:
            outcome = await Renewer(
                in_use=self._in_use,
                stored=self._stored,
                endpoint=self._endpoint,
                grant=self.selection.grant,
                rejected=rejected,
                due=due,
                keeps_running=self._refresher.was_started,
                now=self._now,
            ).renew()
        except (Problem, StoreError) as error:
            self._fail(error)
            self._events.failed(self.selection.grant, error, self._in_use.record)
            return error.detail
        else:
            self._failure, self._backoff, self._in_use.rejected = None, Backoff(), None
            if outcome == RENEWED:
                self._renewals += 1
                if rejected is not None and self._in_use.bearer is not None:
                    self._verdict = Verdict(self._in_use.bearer.token)
            log.info("token %s", outcome)
            return outcome
        finally:
            if self._stored.unpersisted is not None:
                self._refresher.wake()

    def _fail(self, error: Problem | StoreError) -> None:
        """Keep a failure for those who ask next, and do not try again too soon."""
        self._backoff = self._backoff.after(error, deferred=isinstance(error, UnwritableError), now=self._monotonic())
        self._failure = TokenEndpointDown(error.detail, hint=error.hint) if isinstance(error, StoreError) else error

    # In the background.

    async def _refresh(self) -> None:
        """Follow the store; store what could not be stored; renew before it matters."""
        if self.selection.grant == "authorization_code":
            await self._follow_store()
        if self._stored.unpersisted is not None:
            # A task of its own, as a renewal is: `close` cancels this one, and waits for that.
            self._saving = asyncio.create_task(self._save(), name="slproxy: write the token")
            await asyncio.wait({self._saving})
        self._in_use.check_clock(self._now())
        if self._in_use.renewal_due_in(self._now()) <= 0.0:
            await self._renew_shared(rejected=self._in_use.rejected)

    async def _save(self) -> None:
        """Store the renewed token that could not be stored, unless something newer took its place meanwhile."""
        if self._stored.unpersisted is None or self._in_use.record is None:
            return
        try:
            async with self._stored.lock():
                record = await self._stored.newest(self._in_use.record)
                if record is None or not self._in_use.has_the_token_of(record):
                    self._set_record(record)
                    self._events.found(self.selection.grant, record)
        except StoreError as error:
            self._stored.unpersisted = error.detail
            log.warning("%s The newest token is still only in memory. %s", error.detail, error.hint)

    def _poll_interval(self) -> float:
        return poll_interval(
            self._in_use.renewal_due_in(self._now()),
            pause=self._backoff.until - self._monotonic(),
            unpersisted=self._stored.unpersisted is not None,
            watch=self._stored.store.watch_interval,
        )
