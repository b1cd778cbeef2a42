"""Verdict on a renewal after a 401."""

from __future__ import annotations

import pytest

from slproxy.auth.verdict import INEFFECTIVE_PAUSE, Verdict

NEW = Verdict("new")


@pytest.mark.parametrize(
    ("verdict", "forbids"),
    [
        pytest.param(Verdict(), False, id="no renewal yet"),
        pytest.param(NEW, False, id="nobody has told yet"),
        pytest.param(NEW.unverified("new", now=0.0), True, id="unverified"),
        pytest.param(NEW.ineffective("new", now=0.0), True, id="ineffective"),
        pytest.param(NEW.unverified("new", now=0.0).verified("new"), False, id="unverified, then verified"),
        pytest.param(NEW.ineffective("new", now=0.0).verified("new"), True, id="the API accepts it for some requests"),
        pytest.param(NEW.ineffective("older", now=0.0), False, id="an older token was rejected again"),
        pytest.param(NEW.unverified("new", now=0.0).verified("older"), True, id="an older token was accepted"),
        pytest.param(Verdict("newer"), False, id="renewed since"),
    ],
)
def test_a_renewal_is_not_repeated_while_it_is_in_doubt(verdict: Verdict, forbids: bool) -> None:
    assert verdict.forbids_renewal("new", now=INEFFECTIVE_PAUSE - 0.1) is forbids
    assert not verdict.forbids_renewal("new", now=INEFFECTIVE_PAUSE)
    assert not verdict.forbids_renewal("older", now=1.0)


def test_of_two_doubts_within_the_pause_the_first_stands_so_that_the_pause_ends() -> None:
    twice = NEW.unverified("new", now=0.0).ineffective("new", now=20.0)
    assert not twice.forbids_renewal("new", now=INEFFECTIVE_PAUSE)
    again = twice.ineffective("new", now=INEFFECTIVE_PAUSE)
    assert again.forbids_renewal("new", now=INEFFECTIVE_PAUSE + 1.0)


def test_a_verdict_does_not_show_its_token() -> None:
    assert "hidden" not in repr(Verdict("hidden"))
