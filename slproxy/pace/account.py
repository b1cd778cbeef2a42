"""Account: what the team may still spend of this minute.

1. What a request will cost is spent before it is sent, and corrected by its reply. What is in flight counts as spent.
2. ``x-ratelimit-remaining-minute`` is the truth, for others spend too. Within a minute it only falls: the lowest that
   was told of it holds, and a reply that comes late never raises it.
3. The minute is the upstream's. A request that was sent in one minute and answered in the next tells of neither.
4. A 429 that is about the budget is the last word: the minute is over for everybody, unless it may still be about the
   last one (``probe``), or about its endpoint (``refusal``).

``now`` is monotonic, in seconds, and never runs backwards. Costs are whole numbers. The limit, its headers and its
window are SalesLoft's (docs/salesloft.md, Rate limit).
"""

from __future__ import annotations

import math
from collections import deque

from slproxy.pace.clock import ServerTime
from slproxy.pace.costs import Costs
from slproxy.pace.external import ExternalSpend
from slproxy.pace.headers import RateLimitHeaders
from slproxy.pace.in_flight import InFlight
from slproxy.pace.minute import Minute
from slproxy.pace.probe import EXHAUSTED_SHARE, PROBE_INTERVAL, PROBE_TIMEOUT, Probe
from slproxy.pace.queue import Queue
from slproxy.pace.refusal import Endpoints, Refusal
from slproxy.pace.reservation import Reservation
from slproxy.pace.rules import Rules
from slproxy.pace.seen import SeenLimit
from slproxy.pace.sliding import SlidingWindow, is_sliding
from slproxy.retry import MINUTE

# How many minutes are remembered.
HISTORY = 10


class Account:
    """What is spent of the team's budget, as far as this process knows."""

    def __init__(self, rules: Rules, queue: Queue, *, unix: float, now: float) -> None:
        """``unix`` is our own clock's time at ``now``; a minute that somebody in the ``queue`` awaits is probed."""
        self.time = ServerTime(unix=unix, now=now)
        self.costs = Costs()
        self._queue = queue
        self.external = ExternalSpend()
        self.probe = Probe()
        self.endpoints = Endpoints()
        self.minute = Minute(number=self.time.minute(now))
        self.history: deque[Minute] = deque(maxlen=HISTORY)
        # Set where the upstream counts a sliding minute.
        self.sliding: SlidingWindow | None = None
        # When the minute has certainly begun, and when the next one will have, by our clock.
        self._began_at = self.time.beginning(self.minute.number)
        self.ends_at = self._began_at + MINUTE
        # What was counted in this minute or in the next.
        self._early = 0
        self.in_flight = InFlight()
        self.blocked_until = self._refused_at = -math.inf
        # What there was at least of the minute that the last reply is about.
        self._opening = math.inf
        self._seen = SeenLimit()
        # The cost of all requests whose replies did not report what remains.
        self._unreported = 0
        self.limit, self.is_told = rules.limit, False
        self.set_rules(rules)

    def set_rules(self, rules: Rules) -> None:
        """Go on under other rules, with what is known."""
        self.rules = rules
        self._set_limit(self.limit if self.is_told else rules.limit, is_told=self.is_told)

    def _set_limit(self, limit: int, *, is_told: bool = True) -> None:
        # What was missing of a higher one was never spent by others.
        missing = max(0, self.limit - limit)
        self.minute.external_spend = max(0, self.minute.external_spend - missing)
        self.external.note_lower_limit(missing)
        # The team's limit, and whether a header, or what was seen, has told it.
        self.limit, self.is_told = limit, is_told
        # What we may spend of a minute.
        self.quota = self.rules.quota(limit)

    def book(self, reservation: Reservation, now: float) -> None:
        """Spend what a reservation costs, whether or not there is so much: it goes now."""
        if now >= self.ends_at:
            self.roll(now)
        reservation.sent, reservation.minute = now, self.minute.number
        reservation.counted, reservation.unreported = self.minute.counted, self._unreported
        reservation.is_probe = bool(self.endpoints.suspects)
        self.in_flight.add(reservation)
        self._spend(reservation, reservation.cost, now)

    def block_until(self, until: float) -> None:
        """Send nobody before a time."""
        self.blocked_until = max(self.blocked_until, until)

    def take_back(self, reservation: Reservation, now: float) -> None:
        """Undo a ``book`` of what was not sent."""
        self.roll(now)
        if reservation in self.in_flight.reservations:
            self._settle(reservation, 0, now)
        reservation.sent = reservation.minute = None

    # What replies teach.

    def lost(self, reservation: Reservation, now: float, *, maybe_sent: bool) -> None:
        """Settle a reservation that got no reply; what may have reached the upstream was spent."""
        if reservation not in self.in_flight.reservations:
            return
        self.roll(now)
        cost = reservation.cost if maybe_sent else 0
        self._settle(reservation, cost, now)
        self._unreported += cost
        self._take_off(reservation, cost, until=self.time.latest(now), now=now)

    def replied(self, reservation: Reservation, now: float, reply: RateLimitHeaders) -> tuple[int, int | None]:
        """Settle a reservation by its reply; return what it has cost, and what remains of the minute it was sent in."""
        assert reservation.sent is not None, "only what was sent is answered"
        if reservation not in self.in_flight.reservations:
            return reservation.cost, None
        booked_in = reservation.minute
        date = None if reply.date is None else reply.date - self.time.skew
        if date is not None:
            was_known = self.time.is_known
            if not self.time.learn(date, sent=reservation.sent, received=now):
                self._relabel(now, was_known=was_known)
            began_at = self.time.beginning(self.minute.number)
            self._began_at = began_at if began_at < self._began_at else self._began_at
            self.ends_at = began_at + MINUTE
        if now >= self.ends_at:
            self.roll(now)
        # The last moment at which it may have been counted.
        until = self.time.latest(now) if date is None else date
        minute = self.minute.number if date is None else int(date // MINUTE)
        if minute > self.minute.number:
            self._begin(minute, now)  # it begins just now, to the last digit
        is_closing = reply.refused and self._is_about_budget(reservation, reply, now)
        free = is_closing or ((reply.refused or reply.unauthorized) and reply.cost is None)
        cost = 0 if free else reservation.cost if reply.cost is None else reply.cost
        if reply.cost is not None and reply.cost != reservation.cost and not reply.refused:
            self.costs.learn(reservation.endpoint, reservation.page_cost, reply.cost)
        self._settle(reservation, cost, now)
        if reply.limit is not None and (reply.limit != self.limit or not self.is_told):
            self._set_limit(reply.limit)
        sent_in = self.minute.number if reservation.sent >= self._began_at else self.minute.number - 1
        # What has come back since it was sent, and reported nothing, may be missing in what it reports.
        missing = self._unreported - reservation.unreported
        remaining = None if reply.remaining is None else reply.remaining - missing
        closed = False
        if is_closing:
            closed = self._refused(reservation, reply, minute, now)
        elif self.sliding is not None:
            self._learn_sliding(self.sliding, reservation.sent, cost, remaining, now)
        elif reply.remaining is not None and self.minute.number == sent_in == int(until // MINUTE):
            if self.minute.remaining is None:
                self._learn_skew(reservation.sent, reply.remaining + cost, now)
            self._learn(reservation, cost, told=reply.remaining, missing=missing, now=now)
        elif minute == self.minute.number:
            self._unreported += cost if reply.remaining is None else 0
            self._take_off(reservation, cost, until=until, now=now)
        # Nothing is known by a 429 that tells nothing of the budget.
        has_told = not reply.refused or (not is_closing and reply.remaining is not None)
        if self.probe.is_wanted and sent_in == self.minute.number and (closed or has_told):
            self.probe.done()
        if has_told and not reply.unauthorized:
            self.endpoints.note_served(reservation.endpoint, reservation.sent, now, is_probe=reservation.is_probe)
        if minute != sent_in or minute != booked_in:
            return cost, None
        return cost, remaining if not is_closing else 0 if closed else None

    def _is_about_budget(self, reservation: Reservation, reply: RateLimitHeaders, now: float) -> bool:
        """Tell whether a 429 is about the budget, and note in the reservation how it is to wait."""
        reservation.refusal = Refusal.OTHER
        if not reply.is_about_budget(max(reservation.cost, reservation.page_cost)):
            return False
        is_limited = reply.remaining is None and self.endpoints.is_limited(reservation.endpoint)
        if not is_limited or not (self.minute.remaining is None or self._is_plenty_left(reservation, now)):
            reservation.refusal = Refusal.BUDGET
            return True
        if reply.retry_after is not None:
            reservation.refusal = Refusal.REQUEUED
            self.endpoints.hold(reservation.endpoint, now + reply.retry_after, now)
        return False

    def _is_plenty_left(self, reservation: Reservation, now: float) -> bool:
        """Tell whether replies have said of this minute that there is more left than others spend in a moment."""
        is_told = self.sliding is not None or self.minute.remaining is not None
        is_told |= self.endpoints.is_outlived(reservation.endpoint)
        return is_told and self.team_left(now) > self.limit * EXHAUSTED_SHARE

    def _take_off(self, reservation: Reservation, cost: int, *, until: float, now: float) -> None:
        """Take off a cost that is in no told remaining, from each minute that may have counted it.

        ``until`` is the last moment at which it was counted, in Unix time.
        """
        if reservation.minute != self.minute.number:
            self._spend(reservation, cost, now)
        if until >= (self.minute.number + 1) * MINUTE:
            self._early += cost
        if self.sliding is not None:
            self.sliding.take_off(cost)
        elif self.minute.remaining is not None:
            self.minute.remaining -= cost

    def _learn(self, reservation: Reservation, cost: int, *, told: int, missing: int, now: float) -> None:
        """Learn what remains of this minute: what was ``told``, less what is ``missing`` in it."""
        minute = self.minute
        if reservation.minute != minute.number:
            self._spend(reservation, cost, now)
            reservation.counted = 0
        # What of ours had been counted then: at least, and at most.
        counted = reservation.counted + cost
        spent = minute.spent + minute.early + self.in_flight.cost_of_others(minute.number)
        if minute.remaining is None:
            if not self.rules.is_shared and self._slides(told + spent, told - missing, now):
                return  # what replicas have spent, Redis tells
            if self.probe.previous_exhausted:
                self.external.note_opening(told + counted)
        self._opening = told + counted
        if counted == spent and minute.exact_opening is None and self._opening > self.limit:
            self._set_limit(self._opening)
        minute.note_opening(self._opening, is_exact=counted == spent)
        if self.limit - told - spent > minute.external_spend and not self.rules.is_shared:
            minute.note_external_spend(self.limit - told - spent, now - self._began_at)
        minute.note_remaining(told - missing, now)
        minute.counted += cost if self.time.is_known else 0

    def _slides(self, opening: int, remaining: int, now: float) -> bool:
        """Find out that this minute, which opened with so much for all whom we know of, is none."""
        if self.time.is_known and is_sliding(self.history, self.minute.number, opening, now - self._began_at):
            self.sliding = SlidingWindow(remaining, now)
        return self.sliding is not None

    def _learn_sliding(self, window: SlidingWindow, sent: float, cost: int, remaining: int | None, now: float) -> None:
        if remaining is not None and not window.learn(remaining, cost=cost, sent=sent, limit=self.limit, now=now):
            self.sliding = None
            self.minute.remaining, self.minute.told_at = remaining, now

    def _refused(self, reservation: Reservation, reply: RateLimitHeaders, minute: int, now: float) -> bool:
        """Close the budget: all of it is spent, whatever was believed. Return whether this minute is over."""
        assert reservation.sent is not None, "only what was sent is refused"
        self._refused_at = now
        asked = reply.retry_after if reply.retry_after is not None and reply.retry_after <= MINUTE else None
        if minute < self.minute.number and asked is None:
            return False
        is_doubtful = reply.remaining is None and self._is_plenty_left(reservation, now)
        if is_doubtful and not (reservation.is_probe and self.endpoints.is_proof(reservation.endpoint)):
            reservation.refusal = Refusal.REQUEUED
            until = now + (self.time.until(minute + 1, now) if asked is None else asked)
            self.endpoints.suspect(reservation.endpoint, until, now, was_told=asked is not None)
            return False
        self.endpoints.stop_all(reservation.endpoint, now, is_told=reply.remaining is not None)
        self.minute.refused += 1
        if asked is not None:
            if asked > 0:
                reservation.refusal = Refusal.REQUEUED
            self.block_until(now + asked)
            return False
        if self.sliding is not None:
            # Nothing comes back at once, and nobody knows when.
            self.sliding.refused(now)
            self.external.note_refused(self.limit)
            self.block_until(now + MINUTE / 10)
            return True
        reservation.refusal = Refusal.REQUEUED
        if self.minute.remaining is None and self.probe.refused(reservation.cost, self._into_minute(reservation.sent)):
            self.block_until(now + PROBE_INTERVAL)
            return False
        self.external.note_refused(self.limit)
        self.minute.remaining, self.minute.told_at = 0, now
        self.block_until(now + self.time.until(minute + 1, now))
        return True

    def _learn_skew(self, sent: float, opening: int, now: float) -> None:
        """Find out that a minute has begun later than ``Date`` told."""
        if skew := self.probe.skew(opening, self._into_minute(sent), known=self.time.skew):
            self.time.set_back(skew)
            began_at = self.time.beginning(self.minute.number)
            self._began_at, self.ends_at = min(now, began_at), began_at + MINUTE

    def is_revoked(self, reservation: Reservation, now: float) -> bool:
        """Tell whether a 429 has come since a reservation was sent, and still holds."""
        until = max(self.blocked_until, self.endpoints.held_until(reservation.endpoint))
        return now < until and reservation.sent is not None and reservation.sent <= self._refused_at

    def is_probing(self, now: float) -> bool:
        """Tell whether a single request is to find out that the budget is back."""
        return self.probe.is_wanted and now < self._began_at + PROBE_TIMEOUT

    def note_external_spend(self, cost: int, now: float) -> None:
        """Note what another replica has heard of this minute: it is back, and others have spent so much."""
        self.probe.is_wanted = False
        # What remains, the next reply tells.
        if not self._slides(self.limit - cost, 0, now):
            self.minute.note_external_spend(cost, now - self._began_at)

    # The arithmetic.

    @property
    def headroom(self) -> int:
        """What is left to others, who may spend it before we hear of it."""
        # A limit that somebody has set may be far above what there is; of replicas, none knows that alone.
        return self.external.headroom(self.limit if self.rules.is_shared else min(self.limit, self._opening))

    def left(self, now: float, *, at_best: bool = False) -> float:
        """Return what may be spent now; ``at_best`` if what is in flight was counted already where that may be."""
        left = self.team_left(now, at_best=at_best)
        if self.external.rate or self.external.margin:
            left -= self.headroom
        if self.sliding is not None:
            return left
        rules = self.rules
        allowance = self.quota if rules.burst >= 1.0 else rules.allowance(self.quota, self._into_minute(now))
        ours = allowance - self.minute.spent
        return ours if ours < left else left

    def team_left(self, now: float, *, at_best: bool = False) -> float:
        """Return what remains to the whole team, after what is in flight."""
        minute, window = self.minute, self.sliding
        told_at = minute.told_at if window is None else window.told_at
        in_flight = self.in_flight.cost_since(told_at) if at_best else self.in_flight.cost
        if window is not None:
            return window.remaining(self.limit, now) - in_flight
        # All of ours that it may have counted: a reply tells of what came before it only.
        left = self.limit - minute.spent - minute.early - self.in_flight.cost_of_others(minute.number)
        told = left if minute.remaining is None else minute.remaining - in_flight
        return told if told < left else left

    def held_until(self, now: float) -> float:
        """Return until when nobody is sent, whatever there is; ``now`` if that is no reason."""
        in_doubt = self.in_flight.first_probe_sent() + PROBE_TIMEOUT if self.endpoints.suspects else now
        first_sent = self.in_flight.first_sent(self.minute.number) if self.probe.is_wanted else None
        return max(self.blocked_until, self.probe.waited_for_until(first_sent, self._began_at, now), in_doubt)

    def _into_minute(self, now: float) -> float:
        """Return how many seconds of this minute have certainly passed."""
        return self.time.earliest(now) - self.minute.number * MINUTE

    # The minute.

    def roll(self, now: float) -> None:
        """Begin a new minute, if the upstream's clock has; before its first reply, only once there is none to come."""
        if now >= self.ends_at and (self.time.is_known or not self.in_flight):
            self._begin(self.time.minute(now), now)

    def _begin(self, number: int, now: float) -> None:
        ended = self.minute
        ended.limit = self.limit
        if not self.rules.is_shared and (seen := self._seen.note(ended.exact_opening)) is not None:
            self._set_limit(seen)
        follows = number == ended.number + 1
        awaited = ended.refused > 0 or bool(self._queue.interactive or self._queue.bulk)
        exhausted = ended.remaining is not None and ended.remaining <= ended.limit * EXHAUSTED_SHARE
        self.endpoints.end_doubt()
        self.probe.begin(wanted=awaited, exhausted=follows and (awaited or exhausted))
        self.external.note_end(ended, exhausted=self.probe.previous_exhausted)
        if ended.spent or ended.external_spend:
            self.history.append(ended)
        self.minute = Minute(number=number, early=self._early if follows else 0)
        self._early = 0
        self._began_at, self.ends_at = min(now, self.time.beginning(number)), self.time.beginning(number + 1)

    def _relabel(self, now: float, *, was_known: bool) -> None:
        """Call this minute what the upstream calls it, which is not what was believed."""
        number = self.time.minute(now)
        if was_known and number > self.minute.number:
            self._begin(number, now)  # ours slept
            return
        if not was_known:
            # By our own clock it had begun, which the upstream's first Date denies; or the next one may have.
            self.minute.early += self.history[-1].spent if self.history else 0
            next_may_have = self.time.latest(now) >= (number + 1) * MINUTE
            self._early = self.minute.spent - self.in_flight.cost if next_may_have else 0
        self.in_flight.relabel(self.minute.number, number)
        self.minute.number = number
        self._began_at = self.time.beginning(number)

    def _spend(self, reservation: Reservation, cost: int, now: float) -> None:
        self.minute.spend(cost, reservation)
        if self.sliding is not None:
            self.sliding.spend(cost, now)

    def _settle(self, reservation: Reservation, cost: int, now: float) -> None:
        """Take a reservation out of those in flight, and correct what it has cost."""
        self.in_flight.remove(reservation)
        if reservation.minute == self.minute.number and cost != reservation.cost:
            self._spend(reservation, cost - reservation.cost, now)

    # What is told to people.

    def remaining(self, now: float) -> int:
        """Return what may still be spent of this minute."""
        if now >= self.ends_at:
            self.roll(now)
        left = self.left(now)
        return 0 if left < 0 else math.floor(left) if left < self.quota else self.quota

    def resets_in(self, now: float) -> float:
        """Return the seconds until the next minute."""
        return self.ends_at - now if now < self.ends_at else self.time.until(self.time.minute(now) + 1, now)
