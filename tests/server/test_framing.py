"""Which framing of a request can be read in one way only."""

from __future__ import annotations

import pytest

from slproxy.server.framing import request_fault


@pytest.mark.parametrize(
    ("version", "codings", "lengths", "sound"),
    [
        pytest.param((1, 1), [], [], True, id="no body"),
        pytest.param((1, 0), [], ["5"], True, id="a length in HTTP/1.0"),
        pytest.param((1, 1), ["Chunked"], [], True, id="chunked"),
        pytest.param((1, 1), [], [str(2**63 - 1)], True, id="the longest length"),
        pytest.param((1, 1), [], [str(2**63)], False, id="a length that overflows"),
        pytest.param((2, 0), [], [], False, id="HTTP/2.0"),
        pytest.param((0, 9), [], [], False, id="HTTP/0.9"),
        pytest.param((1, 0), ["chunked"], [], False, id="chunked in HTTP/1.0"),
        pytest.param((1, 1), ["gzip, chunked"], [], False, id="gzip as well"),
        pytest.param((1, 1), ["chunked", "chunked"], [], False, id="chunked twice"),
        pytest.param((1, 1), [""], [], False, id="an empty coding"),
        pytest.param((1, 1), ["chunked"], ["5"], False, id="chunked and a length"),
    ],
)
def test_a_request_is_framed_in_one_way(
    version: tuple[int, int], codings: list[str], lengths: list[str], sound: bool
) -> None:
    assert (request_fault(version=version, codings=codings, lengths=lengths) is None) is sound
