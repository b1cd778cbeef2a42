"""Text from outside: parsed without surprises, printed without effect."""

from __future__ import annotations

import math

import pytest

from slproxy.untrusted import MAX_DEPTH, parse_json, printable

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(DEEP, id="nested too deep for the parser's stack"),
        pytest.param("[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH, id="nested deeper than anything is meant to be"),
        pytest.param('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH, id="objects as well"),
        pytest.param("9" * 5_000, id="more digits than Python reads"),
        pytest.param("1" + "0" * 400, id="no float holds it"),
        pytest.param('{"a": NaN}', id="NaN"),
        pytest.param("[-Infinity]", id="infinite"),
        pytest.param("1e999", id="infinite once it is read"),
        pytest.param(b"\xff\xfe\xff", id="no text"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_is_no_json_that_can_be_used_is_one_kind_of_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"not JSON|nested too deep") as raised:
        parse_json(text)
    assert raised.value.__cause__ is None, "which would quote it"


def test_json_is_what_it_says() -> None:
    assert parse_json('{"a": [1, -2.5, true, null, "\\ud800"]}') == {"a": [1, -2.5, True, None, "\ud800"]}
    assert parse_json("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))


@pytest.mark.parametrize("number", ["9" * 5_000, "NaN", "-1e999"])
def test_where_the_rest_counts_a_number_that_is_none_does_not_lose_it(number: str) -> None:
    document = parse_json(f'{{"token": "t", "expires_in": {number}}}', any_number=True)
    assert isinstance(document, dict)
    assert (document["token"], math.isnan(document["expires_in"])) == ("t", True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zoë 日本 😀", "Zoë 日本 😀"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("a\rb\nc\td\x7f", r"a\rb\nc\td\x7f"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("\u202etxt.exe\u2066\u200f", r"\u202etxt.exe\u2066\u200f"),
        ("one\u2028two\u2029", r"one\u2028two\u2029"),
        ("\udc80\ud800", r"\udc80\ud800"),
    ],
    ids=["letters", "escape sequences", "lines", "C1", "order", "separators", "surrogates"],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable("\n" + text.replace("\n", ""), keep="\n").startswith("\n")
