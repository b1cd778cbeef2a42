"""What is recorded of a request holds no credential from the first."""

from __future__ import annotations

import pytest

from slproxy.forward.headers import returning
from slproxy.observe import MASK, Recording, pairs, redacted, redacted_target

KEPT = ("Accept", "X-Slproxy-Client", "Idempotency-Key", "Proxy-Status", "If-None-Match", "Via", "X-Author")
CREDENTIALS = (
    *("Authorization", "AUTHORIZATION", "Cookie", "Set-Cookie", "Proxy-Authorization", "Proxy-X", "X-Slproxy-Key"),
    *("X-Api-Key", "X_Api_Key", "Ocp-Apim-Subscription-Key", "X-Auth-Token", "X-Client-Secret", "X-Password"),
)


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_header_that_is_named_like_a_credential_loses_its_value(name: str) -> None:
    assert pairs(redacted([(name.encode(), b"Bearer abc"), (b"X-A", b"1")])) == [
        (name.encode(), f"Bearer {MASK}".encode()),
        (b"X-A", b"1"),
    ]
    assert pairs(redacted([(name.encode(), b"abc")])) == [(name.encode(), MASK.encode())]


@pytest.mark.parametrize("name", KEPT)
def test_other_headers_are_kept_as_they_came(name: str) -> None:
    assert pairs(redacted([(name.encode(), b"a: b")])) == [(name.encode(), b"a: b")]


def test_of_what_is_not_passed_on_credentials_are_not_even_looked_at() -> None:
    headers = [(b"A", b"1"), (b"Set-Cookie", b"secret"), (b"Connection", b"close"), (b"Alt-Svc", b"2")]
    recording = Recording()
    recording.replied(headers, returning(headers, api_url="https://a.test", host="b.test")[2])
    assert list(recording.picked) == [(b"Connection", b"close"), (b"Alt-Svc", b"2")]
    recording.replied([(b"Location", b"/"), *headers], None)
    assert b"secret" not in (recording.reply or b"")


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("/v2/x?page=1&sort_by=a", "/v2/x?page=1&sort_by=a"),
        ("/v2/tokens", "/v2/tokens"),
        ("/v2/x?access_token=abc&page=1", f"/v2/x?access_token={MASK}&page=1"),
        ("/v2/x?page=1&API-KEY=abc", f"/v2/x?page=1&API-KEY={MASK}"),
        ("/v2/x?a=1;client_secret=a%20b#c", f"/v2/x?a=1;client_secret={MASK}#c"),
        ("/v2/x?code=abc&decode=1&zip_code=2", f"/v2/x?code={MASK}&decode=1&zip_code=2"),
        ("/v2/x?sig=abc&X-Amz-Signature=def", f"/v2/x?sig={MASK}&X-Amz-Signature={MASK}"),
        ("/v2/x?password=", f"/v2/x?password={MASK}"),
    ],
)
def test_a_parameter_that_is_named_like_a_credential_loses_its_value(target: str, kept: str) -> None:
    assert redacted_target(target) == kept
