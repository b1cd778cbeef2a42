"""Saving a login: it replaces the earlier one of the same person, and another person's only with consent."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from slproxy.auth.identity import Identity
from slproxy.errors import DamagedError, OtherLoginError, StoreError, UndecryptableError
from slproxy.store import Record, TokenStore


async def save_login(store: TokenStore, record: Record, who: Identity | None, *, replace_other: bool) -> Record | None:
    """Store a new login in the place of the earlier one.

    That is returned where it may be revoked: nobody has it any more. What cannot be decrypted, or is damaged, is
    quarantined, never overwritten.

    Raises:
        OtherLoginError: the earlier login is somebody else's, as far as is known, and is not to be replaced.
        StoreError: the place is another profile's, or cannot be written.
    """
    async with store.lock():
        try:
            earlier = await store.read()
        except DamagedError:
            earlier = None
        except UndecryptableError:
            if not replace_other:
                raise
            await store.quarantine()
            earlier = None
        if earlier is not None:
            _check_replaceable(earlier, record, who, store, replace_other=replace_other)
            # Later than any before it, whatever the clocks of two machines say.
            record = replace(record, login=max(record.login, earlier.login + 1))
        if who is not None:
            record = replace(record, user_id=who.user_id, team_id=who.team_id)
        writing = asyncio.ensure_future(store.write(record))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # A write that has begun ends, whoever gives up: the lock is held until then.
            await asyncio.wait({writing})
            raise
        return earlier if earlier is not None and _is_another_users(earlier, record) else None


def _is_another_users(earlier: Record, record: Record) -> bool:
    """Tell whether two logins of one client are known to be of two users.

    Two of one user may be one grant to SalesLoft: to revoke the earlier one could end the new one (docs/salesloft.md,
    OAuth). What belongs to another client, or to another accounts host, is shown to neither.
    """
    users = (earlier.user_id, record.user_id)
    return earlier.belongs_to(record.owner) and None not in users and users[0] != users[1]


def _check_replaceable(
    earlier: Record, record: Record, who: Identity | None, store: TokenStore, *, replace_other: bool
) -> None:
    if earlier.profile != record.profile:
        raise StoreError(
            f"The token of the profile {earlier.profile} is stored in the same place: {store.description}.",
            hint="Give each profile a store.path of its own, or none; then log in again.",
        )
    if replace_other:
        return
    if not earlier.belongs_to(record.owner):
        raise OtherLoginError(
            f"The profile {earlier.profile} holds another login, {earlier.differs_from(record.owner)}."
            " Nothing was replaced.",
            hint="To replace it: slproxy login --replace. To keep both: slproxy login --profile NAME",
        )
    if earlier.user_id is None:
        return
    if who is None:
        raise OtherLoginError(
            "The profile has a login already, and SalesLoft did not say whose the new one is. Nothing was replaced.",
            hint="Run slproxy login again when the API answers, or: slproxy login --replace",
        )
    if (earlier.user_id, earlier.team_id) != (who.user_id, who.team_id):
        raise OtherLoginError(
            f"The profile {earlier.profile} is logged in as another user (user {earlier.user_id} of team"
            f" {earlier.team_id}); this is {who}, user {who.user_id} of team {who.team_id}. Nothing was replaced.",
            hint="To replace it: slproxy login --replace. To keep both: slproxy login --profile NAME",
        )
