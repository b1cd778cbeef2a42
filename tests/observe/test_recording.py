"""What is recorded of a request holds no credential from the first."""

from __future__ import annotations

import pytest

from slproxy.observe import MASK, Recording, pairs

KEPT = ("Accept", "X-Slproxy-Client", "Idempotency-Key", "Proxy-Status", "If-None-Match", "Via", "X-Author")
CREDENTIALS = (
    *("Authorization", "AUTHORIZATION", "Cookie", "Set-Cookie", "Proxy-Authorization", "Proxy-X", "X-Slproxy-Key"),
    *("X-Api-Key", "X_Api_Key", "Ocp-Apim-Subscription-Key", "X-Auth-Token", "X-Client-Secret", "X-Password"),
)


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_header_that_is_named_like_a_credential_loses_its_value(name: str) -> None:
    recording = Recording(1, 0.0)
    recording.arrived("/v2/x", [(name.encode(), b"Bearer abc"), (b"X-A", b"1")])
    assert recording.came == [(name.encode(), f"Bearer {MASK}".encode()), (b"X-A", b"1")]
    recording.arrived("/v2/x", [(name.encode(), b"abc")])
    assert recording.came == [(name.encode(), MASK.encode())]
    recording.replied([(b"X-A", b"1"), (name.encode(), b"abc")], (1,))
    assert recording.stopped == [(1, name.encode(), MASK.encode())]
    recording.replied([(name.encode(), b"abc")], None)
    assert pairs(recording.reply or b"") == [(name.encode(), MASK.encode())]


@pytest.mark.parametrize("name", KEPT)
def test_other_headers_are_kept_as_they_came(name: str) -> None:
    recording = Recording(1, 0.0)
    recording.arrived("/v2/x", [(name.encode(), b"a: b")])
    assert recording.came == [(name.encode(), b"a: b")]


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
    recording = Recording(1, 0.0)
    recording.arrived(target, None)
    assert recording.target == kept
