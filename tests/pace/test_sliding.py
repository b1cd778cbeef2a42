"""Sliding window: found out, paced evenly, and left again."""

from __future__ import annotations

import itertools

import pytest

from slproxy.pace import Refusal
from tests.support.desk import Desk, desk


def test_a_sliding_minute_is_found_out_and_paced_evenly() -> None:
    it = desk()
    for left in range(599, -1, -1):
        it.spend(left=left)
    reservations = [it.enqueue() for _ in range(10)]
    it.now = 60.0
    assert it.go() == reservations[:1]
    it.reply(reservations[0], 0)
    assert it.account.sliding
    gone: list[float] = []
    while len(gone) < 9:
        it.now += max(it.budget.wake_in(it.now) or 0.0, 0.001)
        for reservation in it.go():
            gone.append(it.now)
            it.reply(reservation, 0)
    gaps = [after - before for before, after in itertools.pairwise(gone)]
    assert all(gap == pytest.approx(0.1, abs=0.02) for gap in gaps)


def test_a_team_that_spends_it_all_itself_is_no_sliding_minute() -> None:
    it = desk()
    it.spend(left=0)
    it.now = 60.5
    # Others were faster; but what was gone had not been ours alone.
    it.spend(left=250)
    assert not it.account.sliding


def test_what_is_gone_late_in_a_minute_others_may_have_spent() -> None:
    it = desk()
    it.spend(left=599)
    it.spend(left=50)
    it.now = 70.0
    it.spend(left=99)
    assert it.account.sliding is None
    it.now = 120.0
    it.spend(left=99)
    assert it.account.sliding is None, "the last minute had opened with no more, as far as is known"


def replica() -> Desk:
    """Return a replica at second 60: in the minute before, all was spent."""
    it = desk(is_shared=True)
    it.spend(left=599)
    it.spend(left=0)
    it.now = 60.0
    it.account.roll(it.now)
    return it


def test_a_replica_that_others_outran_takes_no_minute_for_one_that_slides() -> None:
    it = replica()
    it.spend(left=0)
    assert it.account.sliding is None
    # And by all that replicas have spent of it, which Redis tells, none is missing.
    it.account.note_external_spend(0, it.now)
    assert it.account.sliding is None


def test_replicas_find_out_that_a_minute_slides_by_what_none_of_them_has_spent() -> None:
    it = replica()
    it.account.note_external_spend(600, it.now)
    assert it.account.sliding is not None
    assert it.left() == 0
    it.spend(left=100)
    assert it.left() == 100


def sliding() -> Desk:
    """Return a budget that has found out at second 60 that the minute slides, with nothing left."""
    it = desk()
    it.spend_all()
    it.now = 60.0
    it.spend(left=0)
    assert it.account.sliding is not None
    return it


def test_a_minute_that_brings_all_of_it_back_does_not_slide_any_more() -> None:
    it = sliding()
    it.now = 125.0
    # More than was spent a minute ago.
    it.spend(left=599)
    assert it.account.sliding is None
    assert it.left() == 599
    it.now = 180.0
    it.spend(left=599)
    assert it.account.sliding is None


def test_what_comes_back_a_minute_after_it_was_spent_is_no_new_minute() -> None:
    it = sliding()
    for second in range(60, 120):
        it.now = float(second)
        for _ in range(10):
            it.spend(left=0)
    it.now = 190.0
    it.spend(left=599)
    assert it.account.sliding is not None


def test_the_first_replies_of_a_sliding_minute_do_not_end_it() -> None:
    """As long as it is not known what was spent a minute ago."""
    it = sliding()
    it.now = 90.0
    it.spend(left=599)
    assert it.account.sliding is not None


def test_a_late_reply_of_a_sliding_minute_tells_nothing() -> None:
    it = sliding()
    early = it.send()
    it.now = 61.0
    it.spend(left=100)
    it.reply(early, 400)
    assert it.left() == 100


def test_a_sliding_minute_gives_back_evenly_what_was_spent() -> None:
    it = sliding()
    it.now = 66.0
    assert it.left() == 60
    it.send(30)
    assert it.left() == 30
    it.now = 600.0
    assert it.left() == 570


def test_what_was_lost_of_a_sliding_minute_is_taken_off() -> None:
    it = sliding()
    it.spend(left=100)
    lost = it.send(10)
    it.account.lost(lost, it.now, maybe_sent=True)
    assert it.left() == 90


def test_a_429_of_a_sliding_minute_holds_everybody_for_a_tenth_of_it() -> None:
    it = sliding()
    it.spend(left=100)
    refused = it.send()
    it.reply(refused, 0, refused=True)
    assert refused.refusal is Refusal.BUDGET
    assert it.left() == 0
    it.enqueue()
    it.now += 5.9
    assert it.go() == []
    it.now += 0.11
    assert len(it.go()) == 1


def test_the_wait_in_a_sliding_minute_counts_those_ahead() -> None:
    it = sliding()
    assert it.budget.estimated_wait(it.ask(), it.now) == pytest.approx(0.1, abs=0.01)
    for _ in range(50):
        it.enqueue()
    assert it.budget.estimated_wait(it.ask(10), it.now) == pytest.approx(6.0, abs=0.2)
