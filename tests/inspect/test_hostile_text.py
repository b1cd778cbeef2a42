"""Text that was made to take long, or to fail, where the inspector reads it: it does so in the loop that serves all."""

from __future__ import annotations

import time

import pytest

from slproxy.inspect.bodies import as_text
from slproxy.inspect.har import masked_form, masked_text
from slproxy.observe import MASK, redacted_target

KIB = 1024
# Seconds of processor time: each of these takes milliseconds, and took up to hours.
SOON = 1.0


@pytest.mark.parametrize(
    "query", ["token" * (6 * KIB), "?token" * (5 * KIB), "&;" * (16 * KIB), "=token" * (5 * KIB)], ids=lambda _: ""
)
def test_a_target_is_read_in_a_time_that_grows_with_its_length(query: str) -> None:
    began = time.process_time()
    for _ in range(5):
        redacted_target(f"/v2/x?token{query}")
    assert time.process_time() - began < SOON / 4


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a" * (128 * KIB), "application/x-www-form-urlencoded"),
        ("?a" * (64 * KIB), "application/x-www-form-urlencoded"),
        ('"' + r"\"" * (64 * KIB), "application/json"),
        ('"a"   ' * (20 * KIB) + '"', "application/json"),
        ('{"' + "_person_" * KIB + "]" * (3 * KIB) + r'\n": 1}', "application/json"),
        ('{"' + "_name" * (20 * KIB) + "]" * (20 * KIB) + 'x": 1}', "application/json"),
        ("[" * (128 * KIB), "application/json"),
    ],
    ids=["form", "questions", "escapes", "strings", "person", "names", "brackets"],
)
def test_a_text_is_masked_in_a_time_that_grows_with_its_length(text: str, kind: str) -> None:
    began = time.process_time()
    masked_text(text, kind)
    assert time.process_time() - began < SOON


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "unicode_escape", "zlib", "no-such"])
def test_only_charsets_of_texts_are_read_by(charset: str) -> None:
    assert as_text(rb"a\x41", f"application/json; charset={charset}", is_cut=False) == r"a\x41"


@pytest.mark.parametrize(("charset", "text"), [("iso-8859-1", "ä"), ('"UTF-8"', "ä"), ("windows-1252", "€")])
def test_a_text_is_read_by_its_charset(charset: str, text: str) -> None:
    assert as_text(text.encode(charset.strip('"')), f"text/plain; charset={charset}", is_cut=False) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            '["a", "b", {"name": "Jane", "x": "y", "email": "j',
            f'["a", "b", {{"name": "{MASK}", "x": "y", "email": "{MASK}"',
        ),
        (r'{"na\"me": "a\"b", "name": "a\"b", "x', rf'{{"na\"me": "a\"b", "name": "{MASK}", "x'),
        ('{"phone" : 123, "id": 4', f'{{"phone" : "{MASK}", "id": 4'),
    ],
)
def test_a_cut_document_loses_what_people_have(text: str, masked: str) -> None:
    assert masked_text(text, "application/json") == masked


def test_a_field_without_a_value_is_no_field() -> None:
    assert masked_form("name&a=b;email=c&name=&x") == f"name&a=b;email={MASK}&name={MASK}&x"
