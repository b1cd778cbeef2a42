"""Whose turn it is to be sent, and when: the team's budget, decided without a clock or IO.

1. What a request will cost is spent before it is sent, and corrected by its reply. What was sent and is not answered
   yet counts as spent.
2. ``x-ratelimit-remaining-minute`` is the truth, for others spend too. Within a minute it only falls: the lowest that
   was told of it holds, and a reply that comes late never raises it.
3. The minute is the upstream's. A request that was sent in one minute and answered in the next tells of neither.
4. First come, first served within a priority; nobody overtakes, not even with a request that would still fit.
5. A 429 is the last word: the minute is over for everybody. But one at the beginning of a minute may still be about
   the last one, for the clock that counts need not be the one that ``Date`` tells: it is asked again before that holds.

``Budget`` is the state; ``now`` is monotonic, in seconds, and never runs backwards. Costs are whole numbers. The limit,
its headers and its window are SalesLoft's (docs/salesloft.md, Rate limit).
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from slproxy.http import MINUTE
from slproxy.pace.clock import ServerTime
from slproxy.pace.costs import Costs, endpoint_of
from slproxy.pace.headers import RateLimitHeaders
from slproxy.pace.reservation import Reservation

# What bulk requests get of each stretch in which interactive ones wait as well.
BULK_SHARE = 0.1
# A minute that follows a spent one is opened by a single request, which tells whether the budget is back; the others
# wait for its reply, but no longer than this, in seconds.
PROBE_TIMEOUT = 3.0
# How long after its refusal another one is sent, in seconds; and how far the clock that counts is believed to be behind
# the one that ``Date`` tells, at most. That both are one is inferred only (docs/salesloft.md, Rate limit).
PROBE_INTERVAL = 1.0
MAX_CLOCK_SKEW = 2.0
# Where the minute slides, this share of the budget is sent evenly: all of it would be over by the least delay.
SMOOTHING_SHARE = 0.97
# A minute is spent when so little of it is left, as a share.
EXHAUSTED_SHARE = 0.05
# How many clients and endpoints are told apart within a minute.
MAX_LABELS = 100
# How many minutes are remembered.
HISTORY = 10
# A limit that no header tells is believed once it was seen in so many minutes running.
SEEN_MINUTES = 3

# How fast others spend is taken over this many seconds of a minute or more; what they spend in so many is kept back,
# up to a share of the limit: who spends faster does so in bursts, and is done.
RATE_OVER = 5.0
HEADROOM_SECONDS = 3.0
MAX_HEADROOM_SHARE = 0.025


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """How the budget is to be used: ``limit`` is the cost of a minute, and a cap on ours if ``is_cap``.

    ``reserve`` is the share that is left to others; ``burst`` the share of our own part that may leave at once. With
    ``is_shared``, replicas spend of it as well, so that what is missing was not spent by others.
    """

    limit: int = 600
    is_cap: bool = False
    reserve: float = 0.0
    burst: float = 1.0
    is_shared: bool = False


@dataclass(kw_only=True, slots=True)
class Minute:
    """What became of one minute; ``number`` counts from 1970.

    ``foreign`` is the most that others were seen to spend, within so many seconds of its beginning: ``foreign_within``.
    ``had`` is what there was before we spent of it, as far as it was told; ``exactly`` the same, where that is certain.
    """

    number: int
    limit: int = 0
    spent: int = 0
    external_spend: int = 0
    external_spend_within: float = RATE_OVER
    refused: int = 0
    waited: int = 0
    longest_wait: float = 0.0
    remaining: int | None = None
    had: int | None = None
    exactly: int | None = None
    # What was booked in the minute before, and may have been counted in this one.
    early: int = 0
    by_client: Counter[str] = field(default_factory=Counter)
    by_endpoint: Counter[str] = field(default_factory=Counter)


class Budget:
    """The team's budget as this process knows it, and who waits for it."""

    def __init__(self, rules: Rules, *, unix: float, now: float) -> None:
        """``unix`` is our own clock's time at ``now``."""
        self.time = ServerTime(unix=unix, now=now)
        self.costs = Costs()
        self.minute = Minute(number=self.time.minute(now))
        # When it has certainly begun, and when the next one will have, by our clock.
        self._began_at = self.time.beginning(self.minute.number)
        self._ends_at = self._began_at + MINUTE
        # What was counted in this minute or in the next.
        self._early = 0
        self.history: deque[Minute] = deque(maxlen=HISTORY)
        # Whether the upstream counts a sliding minute: then all is sent evenly.
        self.is_sliding = False
        self._interactive: deque[Reservation] = deque()
        self._bulk: deque[Reservation] = deque()
        self._tickets = itertools.count()
        self._in_flight: set[Reservation] = set()
        self._in_flight_cost = 0
        # The least that was told to remain of this minute, and when; of a sliding one the last that was told.
        self._low: int | None = None
        self._low_at = self._low_sent = -math.inf
        self._closed_until = self._refused_at = -math.inf
        # Whether the budget may not be back in this minute, since the last one was spent; and so may a refusal tell.
        self._probing = self._previous_exhausted = False
        # Whether the replicas have one scout among them, and not each its own.
        self.probes_together = False
        # By how many seconds the clock that counts is behind the one that Date tells; what was refused as too early.
        self._clock_skew = 0.0
        self._too_early = 0
        # What both priorities, and bulk alone, have spent while both waited.
        self._contested = self._contested_bulk = 0
        self._even_at = -math.inf
        self._sliding_since = -math.inf
        # While it slides: what was spent in each second.
        self._spent_in_second: deque[list[float]] = deque()
        self._foreign = 0.0
        self._external_rate = 0.0
        # What the last reply has told that there was of its minute.
        self._had = math.inf
        # What there was of the last minutes that somebody has waited for, as they began.
        self._openings: deque[int] = deque(maxlen=2)
        self._margin = 0.0
        self._seen: deque[int] = deque(maxlen=SEEN_MINUTES)
        self._sends = 0

        self.limit, self.is_told = rules.limit, False
        self.set_rules(rules)

    def set_rules(self, rules: Rules) -> None:
        """Go on under other rules, with what is known."""
        self.rules = rules
        self._set_limit(self.limit if self.is_told else rules.limit, is_told=self.is_told)

    def afresh(self, now: float) -> Budget:
        """Return the budget of another team, for the same queue; what is in flight teaches it nothing."""
        other = Budget(self.rules, unix=self.time.earliest(now), now=now)
        other._tickets, other._interactive, other._bulk = self._tickets, self._interactive, self._bulk
        return other

    def _set_limit(self, limit: int, *, is_told: bool = True) -> None:
        # What was missing of a higher one was never spent by others.
        missing = max(0, self.limit - limit)
        self.minute.external_spend = max(0, self.minute.external_spend - missing)
        self._foreign = max(0.0, self._foreign - missing)
        # The team's limit, and whether a header, or what was seen, has told it.
        self.limit, self.is_told = limit, is_told
        quota = min(limit, self.rules.limit) if self.rules.is_cap else limit
        # What we may spend of a minute.
        self.quota = max(1, math.floor(quota * (1 - self.rules.reserve)))

    # Coming, waiting, going.

    def reservation(
        self,
        method: str,
        target: str,
        *,
        client: str,
        bulk: bool,
        now: float,
        max_wait: float,
        ticket: int | None = None,
    ) -> Reservation:
        """Return the reservation of a request that may wait ``max_wait`` seconds; a repeat keeps its ``ticket``."""
        endpoint, page_cost = endpoint_of(method, target)
        return Reservation(
            ticket=next(self._tickets) if ticket is None else ticket,
            endpoint=endpoint,
            page_cost=page_cost,
            client=client,
            bulk=bulk,
            arrived=now,
            deadline=now + max_wait,
            cost=self.costs.foresee(endpoint, page_cost),
        )

    @property
    def is_waited_for(self) -> bool:
        """Whether anybody waits."""
        return bool(self._interactive or self._bulk)

    def try_send(self, reservation: Reservation, now: float) -> bool:
        """Send a turn that nothing holds: nobody waits, and there is budget."""
        self._roll(now)
        if self.is_waited_for or now < self._closed_until or self._probing or self.is_sliding:
            return False
        if reservation.cost > self._left(now):
            return False
        self.book(reservation, now)
        return True

    def waited(self, seconds: float) -> None:
        """Take note of how long somebody has waited who goes now."""
        self.minute.waited += 1
        self.minute.longest_wait = max(self.minute.longest_wait, seconds)

    def enqueue(self, reservation: Reservation, now: float) -> float | None:
        """Queue a turn; or, if it cannot come in time, return the seconds after which it could."""
        self._roll(now)
        wait = self.estimated_wait(reservation, now)
        if wait > reservation.deadline - now:
            return max(wait, 1.0)
        self._queue(reservation)
        return None

    def _queue(self, reservation: Reservation) -> None:
        queue = self._bulk if reservation.bulk else self._interactive
        if not queue or queue[-1].ticket < reservation.ticket:
            queue.append(reservation)
        else:
            queue.insert(bisect.bisect_left(queue, reservation.ticket, key=lambda each: each.ticket), reservation)

    def cancel(self, reservation: Reservation) -> None:
        """Take a turn out of the queue; nothing was spent on it."""
        for queue in (self._interactive, self._bulk):
            if reservation in queue:
                queue.remove(reservation)

    def expired(self, now: float) -> list[Reservation]:
        """Return those that have waited for as long as they may, or would in vain; they have left."""
        late = [
            reservation
            for reservation in self.waiting()
            if reservation.deadline <= now or reservation.deadline < self._closed_until
        ]
        for reservation in late:
            self.cancel(reservation)
        return late

    def waiting(self) -> Iterator[Reservation]:
        """Yield who waits."""
        return itertools.chain(self._interactive, self._bulk)

    def due(self, now: float) -> Reservation | None:
        """Return who is to be sent now, if anybody is; ``send`` says that it is."""
        reservation = self._next()
        if reservation is None:
            return None
        self._roll(now)
        if now < max(self._closed_until, self._probing_until(now)):
            return None
        price = min(reservation.cost, self.quota)
        if self.is_sliding and now < self._even_at:
            return None
        return reservation if price <= self._left(now) or self._is_untouched() else None

    def send(self, reservation: Reservation, now: float) -> None:
        """Spend what a turn costs: it goes now."""
        self._roll(now)
        if self._interactive and self._bulk:
            self._contested += reservation.cost
            self._contested_bulk += reservation.cost if reservation.bulk else 0
        else:
            self._contested = self._contested_bulk = 0
        (self._bulk if reservation.bulk else self._interactive).remove(reservation)
        self.book(reservation, now)
        self._even_at = max(now, self._even_at) + reservation.cost * MINUTE / (self.quota * SMOOTHING_SHARE)

    def book(self, reservation: Reservation, now: float) -> None:
        """Spend what a turn costs, whether or not there is so much: it goes now, and has not waited."""
        self._roll(now)
        reservation.cost = min(reservation.cost, self.quota)
        reservation.sent, reservation.minute = now, self.minute.number
        self._sends += 1
        reservation.alone = None if self._in_flight else self._sends
        self._in_flight.add(reservation)
        self._in_flight_cost += reservation.cost
        self._spend(reservation, reservation.cost, now)

    def requeue(self, reservation: Reservation, now: float) -> None:
        """Take back a ``send``, since other replicas were faster: it waits on, at its place."""
        self._roll(now)
        if reservation in self._in_flight:
            self._settle(reservation, 0, now)
        reservation.sent = reservation.minute = None
        self._queue(reservation)

    def block_until(self, until: float) -> None:
        """Send nobody before a time."""
        self._closed_until = max(self._closed_until, until)

    # What replies teach.

    def lost(self, reservation: Reservation, now: float, *, maybe_sent: bool) -> None:
        """Settle a turn that got no reply; what may have reached the upstream was spent."""
        if reservation not in self._in_flight:
            return
        self._roll(now)
        cost = reservation.cost if maybe_sent else 0
        self._settle(reservation, cost, now)
        self._count(reservation, cost, until=self.time.latest(now), now=now)

    def replied(self, reservation: Reservation, now: float, reply: RateLimitHeaders) -> tuple[int, int | None]:
        """Settle a turn by its reply; return what it has cost, and what remains of the minute that it was sent in."""
        assert reservation.sent is not None, "only what was sent is answered"
        if reservation not in self._in_flight:
            return reservation.cost, None
        booked_in = reservation.minute
        date = None if reply.date is None else reply.date - self._clock_skew
        if date is not None:
            was_known = self.time.is_known
            if not self.time.learn(date, sent=reservation.sent, received=now):
                self._relabel(now, was_known=was_known)
            self._began_at = min(self._began_at, self.time.beginning(self.minute.number))
            self._ends_at = self.time.beginning(self.minute.number + 1)
        self._roll(now)
        # The last moment at which it may have been counted.
        until = self.time.latest(now) if date is None else date
        minute = self.minute.number if date is None else int(date // MINUTE)
        if minute > self.minute.number:
            self._begin(minute, now)  # it begins just now, to the last digit
        free = reply.refused or (reply.unauthorized and reply.cost is None)
        cost = 0 if free else reservation.cost if reply.cost is None else reply.cost
        if reply.cost is not None and not reply.refused:
            self.costs.learn(reservation.endpoint, reservation.page_cost, reply.cost)
        self._settle(reservation, cost, now)
        if reply.limit is not None and (reply.limit != self.limit or not self.is_told):
            self._set_limit(reply.limit)
        sent_in = self.minute.number if reservation.sent >= self._began_at else self.minute.number - 1
        closed = False
        if reply.refused:
            closed = self._refused(reservation, reply, minute, now)
        elif self.is_sliding:
            self._learn_sliding(reservation, cost, reply, now)
        elif reply.remaining is not None and self.minute.number == sent_in == int(until // MINUTE):
            self._learn_clock_skew(reservation, reply.remaining + cost, now)
            self._learn(reply.remaining, now, exact=reservation.alone == self._sends)
        elif minute == self.minute.number:
            self._count(reservation, cost, until=until, now=now)
        if sent_in == self.minute.number and (closed or not reply.refused):
            self._probing, self._too_early = False, 0
        if minute != sent_in or minute != booked_in:
            return cost, None
        return cost, reply.remaining if not reply.refused else 0 if closed else None

    def _count(self, reservation: Reservation, cost: int, *, until: float, now: float) -> None:
        """Take off what no reply has told to be taken off: in each minute that may have counted it.

        ``until`` is the last moment at which it was counted, in Unix time.
        """
        if reservation.minute != self.minute.number:
            self._spend(reservation, cost, now)
        if until >= (self.minute.number + 1) * MINUTE:
            self._early += cost
        if self._low is not None:
            self._low -= cost

    def _learn(self, remaining: int, now: float, *, exact: bool) -> None:
        """Take note of what remains of this minute; ``exact`` when nothing else was in flight meanwhile."""
        minute = self.minute
        had = remaining + minute.spent - self._in_flight_cost
        # What is in flight may be counted already, and then there was more.
        if self._low is None and self._is_first_of_sliding(had + self._in_flight_cost):
            self.is_sliding, self._low = True, remaining
            self._low_at = self._even_at = self._sliding_since = now
            self._spent_in_second.clear()
            return
        if self._previous_exhausted and self._low is None:
            self._openings.append(had)
        minute.had = had if minute.had is None else max(had, minute.had)
        self._had = had
        if exact and minute.exactly is None:
            minute.exactly = had
            if had > self.limit:
                self._set_limit(had)
        if not self.rules.is_shared:
            self._note_external_spend(self.limit - remaining - minute.spent, now)
        if self._low is None or remaining <= self._low:
            self._low, self._low_at = remaining, now

    def _note_external_spend(self, cost: int, now: float) -> None:
        if cost > self.minute.external_spend:
            self.minute.external_spend = cost
            self.minute.external_spend_within = max(now - self._began_at, RATE_OVER)

    def _is_first_of_sliding(self, had: int) -> bool:
        """Tell whether a new minute has not brought back what the last one had spent."""
        last = self.history[-1] if self.history else None
        if last is None or last.number != self.minute.number - 1 or last.had is None or last.remaining is None:
            return False
        missing = last.had - last.remaining
        # Others may have been faster, but hardly with two thirds of it.
        return missing >= last.had / 2 and had < last.remaining + missing / 3

    def _learn_sliding(self, reservation: Reservation, cost: int, reply: RateLimitHeaders, now: float) -> None:
        """Take the last that was told, in the order of sending; find out whether a minute brings all of it back."""
        assert reservation.sent is not None
        if reply.remaining is None or reservation.sent < self._low_sent:
            return
        if self._low is not None and now - self._sliding_since > MINUTE:
            gained = reply.remaining + cost - self._low
            left_the_window = sum(
                spent
                for second, spent in self._spent_in_second
                if self._low_at - MINUTE - 1 <= second <= now - MINUTE + 1
            )
            if gained - left_the_window > self.limit / 2:
                self.is_sliding = False
        self._low, self._low_at, self._low_sent = reply.remaining, now, reservation.sent

    def _refused(self, reservation: Reservation, reply: RateLimitHeaders, minute: int, now: float) -> bool:
        """Close the budget: all of it is spent, whatever was believed. Return whether this minute is over."""
        assert reservation.sent is not None, "only what was sent is refused"
        self.minute.refused += 1
        self._refused_at = now
        if reply.retry_after is not None:
            if reply.retry_after <= MINUTE:  # a longer one is not about this budget
                reservation.requeued = reply.retry_after > 0
                self.block_until(now + reply.retry_after)
            return False
        if minute < self.minute.number:
            return False
        # Where it slides nothing comes back at once, and nobody knows when.
        reservation.requeued = not self.is_sliding
        into = self.time.earliest(reservation.sent) - self.minute.number * MINUTE
        if self._previous_exhausted and self._low is None and into < MAX_CLOCK_SKEW and not self.is_sliding:
            self._probing = True
            self._too_early = max(self._too_early, reservation.cost)
            self.block_until(now + PROBE_INTERVAL)
            return False
        self._margin = min(max(2 * self._margin, 2.0), self.limit / 10)
        self.block_until(now + (MINUTE / 10 if self.is_sliding else self.time.until(minute + 1, now)))
        self._low, self._low_at = 0, now
        return True

    def _learn_clock_skew(self, reservation: Reservation, had: int, now: float) -> None:
        """Find out that a minute has begun later than ``Date`` told: it now had what it was said not to have."""
        assert reservation.sent is not None, "only what was sent is answered"
        if not self._too_early or self._low is not None or had < self._too_early:
            return
        into = self.time.earliest(reservation.sent) - self.minute.number * MINUTE
        # In whole seconds, as Dates are.
        lag = min(float(math.floor(into)), MAX_CLOCK_SKEW - self._clock_skew)
        self._clock_skew += lag
        self.time.set_back(lag)
        self._began_at = min(now, self.time.beginning(self.minute.number))
        self._ends_at = self.time.beginning(self.minute.number + 1)

    def is_over(self, reservation: Reservation, now: float) -> bool:
        """Tell whether a 429 has come since a turn was given, and still holds."""
        return now < self._closed_until and reservation.sent is not None and reservation.sent <= self._refused_at

    def is_probing(self, now: float) -> bool:
        """Tell whether it is to be found out, by a single request, that the budget is back."""
        return self._probing and now < self._began_at + PROBE_TIMEOUT

    def note_external_spend(self, cost: int, now: float) -> None:
        """Take note of what another replica has heard of this minute: it is back, and others have spent so much."""
        self._probing = False
        self._note_external_spend(cost, now)

    # The arithmetic.

    @property
    def in_flight(self) -> int:
        """How many were sent and are not answered yet."""
        return len(self._in_flight)

    def _left(self, now: float, *, at_best: bool = False) -> float:
        """Return what may be spent now; ``at_best`` if what is in flight was counted already where that may be."""
        team = self._team(now, at_best=at_best)
        return min(team - self.headroom, self._allowance(now) - self.minute.spent)

    def _team(self, now: float, *, at_best: bool = False) -> float:
        """Return what remains to the whole team, after what is in flight."""
        if self._low is None:
            before = sum(
                reservation.cost for reservation in self._in_flight if reservation.minute != self.minute.number
            )
            return self.limit - self.minute.spent - self.minute.early - before
        if at_best:
            flying = sum(
                reservation.cost
                for reservation in self._in_flight
                if reservation.sent is not None and reservation.sent > self._low_at
            )
        else:
            flying = self._in_flight_cost
        regained = (now - self._low_at) * self.limit / MINUTE if self.is_sliding else 0.0
        return min(self._low + regained, self.limit) - flying

    @property
    def headroom(self) -> int:
        """What others may spend before we hear of it: three seconds of theirs, and what 429s have taught."""
        if not self._external_rate and not self._margin:
            return 0
        # A limit that somebody has set may be far above what there is; of replicas, none knows that alone.
        most = self.limit if self.rules.is_shared else min(self.limit, self._had)
        return math.floor(min(HEADROOM_SECONDS * self._external_rate, most * MAX_HEADROOM_SHARE) + self._margin)

    def _allowance(self, now: float) -> float:
        """Return what we may have spent by this moment of the minute."""
        cap = self.quota
        if self.is_sliding or self.rules.burst >= 1.0:
            return math.inf if self.is_sliding else cap
        into = self.time.earliest(now) / MINUTE - self.minute.number
        return cap * (self.rules.burst + (1.0 - self.rules.burst) * min(1.0, max(0.0, into)))

    def _is_untouched(self) -> bool:
        """Tell whether nothing is known to be spent of this minute: then anything may go, were it over the limit."""
        untouched = self._low is None and self.minute.spent == self.minute.early == 0
        return untouched and not self.is_sliding and not self._in_flight

    def _probing_until(self, now: float) -> float:
        """Return until when all wait for the one that opened a doubtful minute; ``now`` if they need not."""
        if not self._probing or self.probes_together:
            return now
        opened = [
            reservation.sent
            for reservation in self._in_flight
            if reservation.minute == self.minute.number and reservation.sent is not None
        ]
        return max(now, min(opened) + PROBE_TIMEOUT) if opened else now

    def _next(self) -> Reservation | None:
        """Return who is first: interactive, unless bulk has had less than its share while both waited."""
        if not self._bulk or not self._interactive:
            return self._interactive[0] if self._interactive else self._bulk[0] if self._bulk else None
        bulk = self._bulk[0]
        owed = self._contested_bulk + bulk.cost <= BULK_SHARE * (self._contested + bulk.cost)
        return bulk if owed else self._interactive[0]

    def estimated_wait(self, reservation: Reservation, now: float) -> float:
        """Return after how many seconds a turn that comes now would be sent, as things stand."""
        ahead = [each.cost for each in self._interactive if reservation.bulk or each.ticket < reservation.ticket]
        ahead += [each.cost for each in self._bulk if reservation.bulk and each.ticket < reservation.ticket]
        share = 1 - BULK_SHARE if self._bulk and not reservation.bulk else 1.0
        cap = self.quota
        closed = max(0.0, self._closed_until - now)
        left = self._left(now, at_best=True)
        if self.is_sliding:
            cost = sum(ahead) + reservation.cost
            return max(
                closed, self._even_at - now + (cost - reservation.cost) * MINUTE / cap, (cost - left) * MINUTE / cap, 0
            )
        if closed == 0.0 and not ahead and (reservation.cost <= left or self._is_untouched()):
            return 0.0
        a_minute = self._a_minute() * share
        wait = closed
        opening = self.time.until(self.minute.number + 1, now)
        left = left * share if closed < opening else a_minute
        for cost in (*ahead, reservation.cost):
            price = min(cost, a_minute)
            if price > left:
                if self.rules.burst < 1.0 and wait < opening:
                    left, wait = self._smoothed(price, now, opening)
                if price > left:
                    wait = opening + MINUTE * max(0, math.floor((wait - opening) / MINUTE) + 1)
                    left = a_minute
            left -= price
        return wait

    def _a_minute(self) -> float:
        """Return what will be ours of a minute to come, at best: who could be served is not to be sent away."""
        # Whoever spends more than half is met at the next minute's beginning, and then it is anybody's.
        external_spend = max(self._foreign, self.minute.external_spend)
        usual = max(self.quota / 2, self.limit - external_spend - self.headroom)
        # Two that began with less are no accident, such as another's burst.
        opening = max(self._openings) if len(self._openings) == 2 else math.inf
        return max(1.0, min(self.quota, usual, opening - self.headroom))

    def _smoothed(self, price: float, now: float, opening: float) -> tuple[float, float]:
        """Return what is left, and after how many seconds, once this minute's allowance has grown by a price."""
        missing = price - self._left(now, at_best=True)
        grows = self.quota * (1.0 - self.rules.burst) / MINUTE
        wait = missing / grows
        if wait < opening and self._team(now, at_best=True) >= price:
            return price, wait
        return 0.0, 0.0

    def wake_in(self, now: float) -> float | None:
        """Return the seconds until time alone may change who is due or who must leave; ``None`` if nobody waits."""
        reservation = self._next()
        if reservation is None:
            return None
        self._roll(now)
        waits = [max(0.0, min(each.deadline for each in self.waiting()) - now)]
        price = min(reservation.cost, self.quota)
        held_until = max(self._closed_until, self._probing_until(now))
        if now < held_until:
            waits.append(held_until - now)
        elif self.is_sliding:
            lacking = price - self._left(now)
            waits.append(max(self._even_at - now, lacking * MINUTE / self.limit, 0.0))
        else:
            # It may be over already, before the first reply; then only that brings the next one.
            if now < self._ends_at:
                waits.append(self.time.until(self.minute.number + 1, now))
            if self.rules.burst < 1.0 and price <= self._team(now) - self.headroom:
                lacking = price - self._left(now)
                waits.append(max(0.0, lacking * MINUTE / (self.quota * (1.0 - self.rules.burst))))
        soonest = min(waits)
        return soonest if soonest < math.inf else None

    # The minute.

    def _roll(self, now: float) -> None:
        """Begin a new minute, if the upstream's clock has; before its first reply, only once there is none to come."""
        if now >= self._ends_at and (self.time.is_known or not self._in_flight):
            self._begin(self.time.minute(now), now)

    def _begin(self, number: int, now: float) -> None:
        ended = self.minute
        ended.remaining = self._low
        ended.limit = self.limit
        if ended.exactly is not None:
            self._seen.append(ended.exactly)
            if len(self._seen) == SEEN_MINUTES and len(set(self._seen)) == 1:
                self._set_limit(self._seen[0])
        self._probing = ended.refused > 0 or self.is_waited_for
        spent = ended.remaining is not None and ended.remaining <= ended.limit * EXHAUSTED_SHARE
        self._previous_exhausted = number == ended.number + 1 and (self._probing or spent)
        if not self._previous_exhausted:
            self._openings.clear()
        self._too_early = 0
        if not ended.refused:
            self._margin = self._margin * 0.9 if self._margin > 1.0 else 0.0
        # An average over some minutes, that follows a rise at once.
        self._foreign = max(float(ended.external_spend), (self._foreign + ended.external_spend) / 2)
        self._foreign = self._foreign if self._foreign >= 1.0 else 0.0
        rate = ended.external_spend / ended.external_spend_within
        self._external_rate = max(rate, (self._external_rate + rate) / 2) if self._foreign else 0.0
        if ended.spent or ended.external_spend:
            self.history.append(ended)
        self.minute = Minute(number=number, early=self._early if number == ended.number + 1 else 0)
        self._early = 0
        self._began_at = min(now, self.time.beginning(number))
        self._ends_at = self.time.beginning(number + 1)
        if not self.is_sliding:
            self._low, self._low_at = None, -math.inf

    def _relabel(self, now: float, *, was_known: bool) -> None:
        """Call this minute what the upstream calls it, which is not what was believed."""
        number = self.time.minute(now)
        if was_known and number > self.minute.number:
            self._begin(number, now)  # ours slept
            return
        if not was_known and self.history:
            # By our own clock it had begun, which the upstream's first Date denies.
            self.minute.early += self.history[-1].spent
        for reservation in self._in_flight:
            reservation.minute = number if reservation.minute == self.minute.number else reservation.minute
        self.minute.number = number
        self._began_at = self.time.beginning(number)
        self._ends_at = self.time.beginning(number + 1)

    def _spend(self, reservation: Reservation, cost: int, now: float) -> None:
        self.minute.spent += cost
        for counts, label in (
            (self.minute.by_client, reservation.client),
            (self.minute.by_endpoint, reservation.endpoint),
        ):
            counts[label if label in counts or len(counts) < MAX_LABELS else "others"] += cost
        if not self.is_sliding:
            return
        second = math.floor(now)
        if not self._spent_in_second or self._spent_in_second[-1][0] != second:
            self._spent_in_second.append([second, 0])
            while self._spent_in_second[0][0] < second - 2 * MINUTE:
                self._spent_in_second.popleft()
        self._spent_in_second[-1][1] += cost

    def _settle(self, reservation: Reservation, cost: int, now: float) -> None:
        """Take a turn out of the air, and correct what it has cost."""
        self._in_flight.remove(reservation)
        self._in_flight_cost -= reservation.cost
        if reservation.minute == self.minute.number and cost != reservation.cost:
            self._spend(reservation, cost - reservation.cost, now)

    # What is told to people.

    def remaining(self, now: float) -> int:
        """Return what may still be spent of this minute."""
        self._roll(now)
        return max(0, math.floor(min(self._left(now), self.quota)))

    def resets_in(self, now: float) -> float:
        """Return the seconds until the next minute."""
        return self.time.until(self.time.minute(now) + 1, now)
