"""Desk: a budget without a proxy, at a time that the test sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from slproxy.pace import RateLimitHeaders, Reservation
from slproxy.pace.account import Account
from slproxy.pace.budget import Budget
from slproxy.pace.rules import Rules

# A whole clock minute, in Unix time.
UNIX = 1_795_000_020.0
FOREVER = math.inf
PAGES = {1: 1, 101: 3, 151: 8, 251: 10, 501: 30}
PAGE_OF = {cost: page for page, cost in PAGES.items()}


@dataclass
class Desk:
    """A budget at a time that the test sets, and short names for what one does with it."""

    budget: Budget
    now: float = 0.0
    unix: float = UNIX

    @property
    def account(self) -> Account:
        return self.budget.account

    def ask(
        self,
        cost: int = 1,
        *,
        bulk: bool = False,
        max_wait: float = FOREVER,
        client: str = "",
        budget: int | None = None,
    ) -> Reservation:
        return self.budget.reservation(
            "GET",
            f"/v2/x?page={PAGE_OF[cost]}",
            client=client,
            bulk=bulk,
            now=self.now,
            max_wait=max_wait,
            budget=budget,
        )

    def enqueue(self, cost: int = 1, *, bulk: bool = False, max_wait: float = FOREVER) -> Reservation:
        reservation = self.ask(cost, bulk=bulk, max_wait=max_wait)
        assert self.budget.enqueue(reservation, self.now) is None
        return reservation

    def go(self) -> list[Reservation]:
        """Send all whose turn it is."""
        gone: list[Reservation] = []
        while (reservation := self.budget.due(self.now)) is not None:
            self.budget.send(reservation, self.now)
            gone.append(reservation)
        return gone

    def send(self, cost: int = 1) -> Reservation:
        """Send one whatever there is."""
        reservation = self.ask(cost)
        self.budget.account.book(reservation, self.now)
        return reservation

    def reply(self, reservation: Reservation, remaining: int | None = None, **more: Any) -> tuple[int, int | None]:
        date = float(math.floor(self.unix + self.now))
        return self.budget.account.replied(
            reservation, self.now, RateLimitHeaders(remaining=remaining, **({"date": date} | more))
        )

    def spend(self, cost: int = 1, *, left: int) -> None:
        """Send one that tells what is left."""
        self.reply(self.send(cost), left)

    def spend_all(self) -> None:
        """Spend the minute, by ourselves."""
        while left := self.left():
            cost = 30 if left >= 30 else 1
            self.spend(cost, left=left - cost)

    def left(self) -> int:
        return self.budget.account.remaining(self.now)


def desk(second: float = 0.0, **rules: Any) -> Desk:
    """Return a budget at a second of a minute that it has seen begin."""
    made = Desk(Budget(Rules(**rules), unix=UNIX, now=0.0))
    first = made.budget.reservation("GET", "/v2/first", client="", bulk=False, now=0.0, max_wait=FOREVER)
    made.budget.account.book(first, 0.0)
    made.reply(first, cost=0)
    made.now = second
    return made
