"""What can be read in two ways, in a reply as it arrives and in a request's framing."""

from __future__ import annotations

import pytest

from slproxy.server.framing import request_fault
from slproxy.upstream.framing import ReplyWatch

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SOUND = {
    "a length": OK + b"Content-Length: 2\r\n\r\n{}",
    "until close": OK + b"\r\nanything \r\n\x00 at all",
    "no reason": b"HTTP/1.1 200\r\n\r\n",
    "an empty reason": b"HTTP/1.1 200 \r\n\r\n",
    "a reason with UTF-8": b"HTTP/1.1 200 \xc3\xa9\r\n\r\n",
    "line ends before it": b"\r\n\r\n" + OK + b"\r\n",
    "bare line feeds in the head": b"HTTP/1.1 200 OK\nX: y\n\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nab",
    "an empty value": OK + b"X:\r\nY: \r\n\r\n",
    "a tab in a value": OK + b"X: a\tb\r\n\r\n",
    "bytes beyond ASCII in a value": OK + b"X: \xff\r\n\r\n",
    "a header twice": OK + b"Server: a\r\nServer: b\r\n\r\n",
    "interim replies": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"\r\n",
    "chunks": CHUNKED + b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n",
    "a chunk of line ends": CHUNKED + b"6\r\n\r\n\r\n\r\n\r\n0\r\n\r\n",
    "chunk extensions": CHUNKED + b'2;a=b;c="d"\r\nab\r\n0;x\r\n\r\n',
    "zeros before a chunk size": CHUNKED + b"0" * 40 + b"2\r\nab\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "a padded chunk size": CHUNKED + b"2  \r\nab\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"2\r\nab\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n",
    "Chunked": OK + b"transfer-encoding:\tChunked \r\n\r\n0\r\n\r\n",
}
FAULTY = {
    "a folded line": OK + b"X: a\r\n b\r\n\r\n",
    "a folded line first": OK + b" X: a\r\n\r\n",
    "a space before the colon": OK + b"Transfer-Encoding : chunked\r\n\r\n",
    "a name with a space": OK + b"X Y: a\r\n\r\n",
    "no name": OK + b": a\r\n\r\n",
    "a bare CR in a value": OK + b"X: a\rb\r\n\r\n",
    "two CRs": OK + b"Date: \r\r\nX: y\r\n\r\n",
    "NUL in a value": OK + b"X: a\x00b\r\n\r\n",
    "DEL in a value": OK + b"X: a\x7fb\r\n\r\n",
    "ESC in the reason": b"HTTP/1.1 200 O\x1bK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a banner": b"220 ftp.example.com ready\r\n\r\n",
    "a body behind an interim reply": b"HTTP/1.1 199 X\r\nContent-Length: 2\r\n\r\n{}" + OK + b"\r\n",
    "gzip": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "gzip and chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an empty coding": OK + b"Transfer-Encoding:\r\n\r\n",
    "a chunk that is longer than its size": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "a chunk that is shorter than its size": CHUNKED + b"3\r\nab\r\n0\r\n\r\n",
    "a chunk that ends in a bare LF": CHUNKED + b"2\r\nab\n0\r\n\r\n",
    "a size that ends in a bare LF": CHUNKED + b"2\nab\r\n0\r\n\r\n",
    "a size that is none": CHUNKED + b"0x2\r\nab\r\n",
    "a negative size": CHUNKED + b"-2\r\nab\r\n",
    "a size of 16 digits": CHUNKED + b"1" + b"0" * 15 + b"\r\nab\r\n",
    "no size": CHUNKED + b"\r\nab\r\n",
    "a trailer that is none": CHUNKED + b"0\r\nab\r\n\r\n",
}


def watched(reply: bytes, *, piece: int, method: str = "GET") -> ReplyWatch:
    watch = ReplyWatch(method)
    for start in range(0, len(reply), piece):
        watch.feed(reply[start : start + piece])
    return watch


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_reply_passes_in_whatever_pieces_it_comes(name: str, piece: int) -> None:
    assert not watched(SOUND[name], piece=piece).is_faulty


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("name", FAULTY)
def test_what_can_be_read_in_two_ways_is_faulty_in_whatever_pieces_it_comes(name: str, piece: int) -> None:
    assert watched(FAULTY[name], piece=piece).is_faulty


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_reply_that_has_no_body_has_no_chunks(status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert not watched(head + b"junk\r\n", piece=3).is_faulty
    assert not watched(CHUNKED + b"junk\r\n", piece=3, method="HEAD").is_faulty


def test_a_head_and_a_line_without_end_are_faulty() -> None:
    for endless in (OK + b"X: ", OK + b"X: y\r\n", CHUNKED + b"1;"):
        watch = ReplyWatch("GET")
        watch.feed(endless)
        for _ in range(600):
            watch.feed(b"X: yyyyy" * 128 if endless.endswith(b"\n") else b"y" * 1024)
        assert watch.is_faulty


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
