"""Renewer: under the store's lock, takes what another process has stored, or requests the next token and stores it.

1. After the lock the store is read again: what another process put there is used, not renewed once more.
2. The new token is stored before it is used: SalesLoft has revoked the old refresh token by then.
3. ``invalid_grant`` is final, and stored as well, so that no process tries that refresh token again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from slproxy.auth.stored_login import StoredLogin
from slproxy.auth.token_endpoint import TokenEndpoint
from slproxy.auth.token_in_use import TokenInUse
from slproxy.auth.unavailable import not_logged_in, refusal_of
from slproxy.config import Grant
from slproxy.errors import LoginRequired, StaleWriteError, UnwritableError
from slproxy.observe import RENEWED, TAKEN_OVER
from slproxy.store import Record


@dataclass(frozen=True, kw_only=True)
class Renewer:
    """Renews the token in use, once. ``rejected`` is the token that the API no longer accepts, if that is why."""

    in_use: TokenInUse
    stored: StoredLogin
    endpoint: TokenEndpoint
    grant: Grant | None
    rejected: str | None = field(repr=False)
    # What was found to be due: since then, what another process has stored may have come into use.
    due: Record | None
    # A proxy goes on running, and can store later what it cannot store now; a command cannot.
    keeps_running: bool
    now: Callable[[], float]

    async def renew(self) -> str:
        """Renew, and return how. Raises TokenUnavailable or StoreError: the token in use stays."""
        in_use = self.in_use
        async with self.stored.lock():
            record = await self.stored.newest(in_use.record)
            if record is None and self.grant == "authorization_code":
                in_use.set_record(None, now=self.now())
                raise not_logged_in(self.stored.foreign)
            if record is not None:
                if (refusal := refusal_of(record)) is not None:
                    in_use.set_record(record, now=self.now())
                    raise refusal
                if in_use.is_fresh(record, self.now()) and not (self.due and record.has_the_token_of(self.due)):
                    in_use.set_record(record, now=self.now())
                    return TAKEN_OVER
                await self._check_writable(record)
            record = await self._next(record)
            try:
                await self.stored.write(record)
            except StaleWriteError:
                # Another process brought a newer one meanwhile, though the lock was ours; or it had expired.
                record = await self.stored.read() or record
            finally:
                self._use(record)
            return RENEWED

    def _use(self, record: Record) -> None:
        """Use a record, unless a newer login was found in the store while this one was requested."""
        if self.in_use.record is None or not record.is_older_than(self.in_use.record):
            self.in_use.set_record(record, now=self.now())

    async def _check_writable(self, record: Record) -> None:
        """Defer the renewal while its token could not be stored. Raises StoreError.

        A proxy without a valid token takes the chance that it keeps running; everybody else waits.
        """
        try:
            await self.stored.check_writable(record)
        except UnwritableError:
            if not self.keeps_running or (self.rejected is None and self.in_use.valid(self.now()) is not None):
                raise

    async def _next(self, record: Record | None) -> Record:
        """Request the next token."""
        if self.grant == "client_credentials":
            token = await self.endpoint.client_credentials()
            return self.stored.first(token) if record is None else record.renewed(token)
        assert record is not None, "a login is renewed only when there is one"
        try:
            return record.renewed(await self.endpoint.refresh(record.token))
        except LoginRequired:
            # An access token that the API has rejected as well is over, whatever its expiry says; one that it has not
            # may still be good.
            token = record.token
            if token.access_token == self.rejected:
                token = replace(token, expires_at=min(self.now(), token.obtained_at), clock_offset=0.0)
            dead = replace(record, token=token, refused="invalid_grant")
            self._use(dead)
            if (newer := await self.stored.mark_refused(dead)) is None:
                raise
            return newer
