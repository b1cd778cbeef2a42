"""Whether the token in use is known to be rejected."""

from __future__ import annotations

import pytest

from slproxy.auth.acceptance import TRUST, Acceptance

REJECTED = Acceptance().after_rejection("token", is_check=False, now=0.0)
# It was rejected once, and then accepted.
TRUSTED = REJECTED.after_acceptance("token", now=0.0)
DOUBTED = TRUSTED.after_rejection("token", is_check=False, now=1.0)


@pytest.mark.parametrize(
    ("known", "rejects", "needs_check"),
    [
        pytest.param(Acceptance(), False, False, id="nothing was heard of it"),
        pytest.param(REJECTED, True, True, id="the last request was rejected"),
        pytest.param(TRUSTED, False, False, id="accepted again"),
        pytest.param(REJECTED.after_acceptance("older", now=0.0), True, True, id="an older one was accepted"),
        pytest.param(Acceptance().after_rejection("older", is_check=False, now=0.0), False, False, id="another token"),
        pytest.param(DOUBTED, False, True, id="one client of an odd endpoint turns nothing off"),
        pytest.param(
            TRUSTED.after_rejection("renewed", is_check=False, now=30.0).after_rejection(
                "token", is_check=False, now=60.0
            ),
            False,
            True,
            id="nor when its 401 has had the token renewed",
        ),
        pytest.param(DOUBTED.after_rejection("token", is_check=True, now=2.0), True, True, id="a check does"),
        pytest.param(
            TRUSTED.after_rejection("token", is_check=False, now=TRUST),
            True,
            True,
            id="and so does time, if no check came",
        ),
        pytest.param(DOUBTED.after_acceptance("token", now=2.0), False, False, id="and one that is accepted ends it"),
    ],
)
def test_a_token_is_rejected_while_the_last_request_with_it_was(
    known: Acceptance, rejects: bool, needs_check: bool
) -> None:
    assert (known.rejects("token"), known.needs_check("token")) == (rejects, needs_check)


def test_what_is_known_of_a_token_does_not_show_it() -> None:
    assert "token" not in repr(REJECTED).replace("token=", "")
