"""What of a reply's bytes is its head and its body, and which bytes are none because they can be read in two ways."""

from __future__ import annotations

import pytest

from slproxy.upstream.parser import NotHTTPError, ReplyParser

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
    "RTSP": b"RTSP/1.0 200 OK\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "a status of 99": b"HTTP/1.1 099 OK\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a length that overflows": OK + b"Content-Length: 9999999999999999999\r\n\r\n{}",
    "a length with a sign": OK + b"Content-Length: +2\r\n\r\n{}",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a banner": b"220 ftp.example.com ready\r\n\r\n",
    "a body behind an interim reply": b"HTTP/1.1 199 X\r\nContent-Length: 2\r\n\r\n{}" + OK + b"\r\n",
    "gzip": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "gzip and chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked and a tab, which llhttp takes for another": OK + b"Transfer-Encoding: chunked\t\r\n\r\n2\r\nab\r\n",
    "an empty coding": OK + b"Transfer-Encoding:\r\n\r\n",
    "a chunk that is longer than its size": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "a chunk that is shorter than its size": CHUNKED + b"3\r\nab\r\n0\r\n\r\n",
    "a chunk that ends in a bare LF": CHUNKED + b"2\r\nab\n0\r\n\r\n",
    "a size that ends in a bare LF": CHUNKED + b"2\nab\r\n0\r\n\r\n",
    "a size that is none": CHUNKED + b"0x2\r\nab\r\n",
    "a negative size": CHUNKED + b"-2\r\nab\r\n",
    "a size that overflows": CHUNKED + b"f" * 17 + b"\r\nab\r\n",
    "no size": CHUNKED + b"\r\nab\r\n",
    "a trailer that is none": CHUNKED + b"0\r\nab\r\n\r\n",
}


# What the body of a sound reply is; nothing in the others.
BODIES = {
    "a length": b"{}",
    "until close": b"anything \r\n\x00 at all",
    "HTTP/1.0": b"ab",
    "chunks": b"hello0123456789",
    "a chunk of line ends": b"\r\n\r\n\r\n",
    "chunk extensions": b"ab",
    "zeros before a chunk size": b"ab",
    "chunks in HTTP/1.0": b"ab",
    "a padded chunk size": b"ab",
    "trailers": b"ab",
}
PIECES = [1, 2, 3, 7, 10_000]


def parsed(reply: bytes, *, piece: int = 10_000, method: str = "GET") -> ReplyParser:
    parser = ReplyParser(has_body=method != "HEAD")
    for start in range(0, len(reply), piece):
        parser.feed(memoryview(reply)[start : start + piece])
    return parser


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_reply_is_read_in_whatever_pieces_it_comes(name: str, piece: int) -> None:
    parser = parsed(SOUND[name], piece=piece)
    assert (parser.has_head, parser.status, bytes(parser.body)) == (True, 200, BODIES.get(name, b""))
    assert parser.is_complete is not parser.is_until_close
    assert parser.end(), "nothing is missing"


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("name", FAULTY)
def test_what_can_be_read_in_two_ways_is_none_in_whatever_pieces_it_comes(name: str, piece: int) -> None:
    with pytest.raises(NotHTTPError):
        parsed(FAULTY[name], piece=piece)


@pytest.mark.parametrize(
    ("reply", "headers"),
    [
        pytest.param(b"X: y\r\nx: z\r\nX: y\r\n", [(b"X", b"y"), (b"x", b"z"), (b"X", b"y")], id="repeated"),
        pytest.param(b"X:\r\nY: \t \r\nZ:\ta b \t\r\n", [(b"X", b""), (b"Y", b""), (b"Z", b"a b")], id="blank"),
        pytest.param(b"X: \xff\xc3\xa9\r\n", [(b"X", b"\xff\xc3\xa9")], id="beyond ASCII"),
    ],
)
@pytest.mark.parametrize("piece", PIECES)
def test_headers_stand_as_they_came_in_their_order(
    reply: bytes, headers: list[tuple[bytes, bytes]], piece: int
) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    parser = parsed(interim + b"HTTP/1.1 299 \xc3\xa9 yes\r\n" + reply + b"\r\n", piece=piece)
    assert (parser.status, parser.reason, parser.headers) == (299, "é yes", headers)


@pytest.mark.parametrize(
    ("reply", "keeps_alive"),
    [
        pytest.param(OK + b"Content-Length: 2\r\n\r\n{}", True, id="a length"),
        pytest.param(CHUNKED + b"0\r\n\r\n", True, id="chunks"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", True, id="204"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", True, id="304 with a length"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", False, id="HTTP/1.0"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", True, id="HTTP/1.0 kept alive"
        ),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            False,
            id="chunks in HTTP/1.0",
        ),
        pytest.param(OK + b"Connection: x, Close\r\nContent-Length: 2\r\n\r\n{}", False, id="Connection: close"),
        pytest.param(OK + b"Content-Length: 2\r\n\r\n{}junk", False, id="junk behind it"),
        pytest.param(OK + b"Content-Length: 2\r\n\r\n{}" + OK + b"\r\n", False, id="another reply behind it"),
        pytest.param(CHUNKED + b"0\r\n\r\n" + OK + b"\r\n", False, id="another reply behind chunks"),
        pytest.param(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}", False, id="204 with a body"),
    ],
)
@pytest.mark.parametrize("piece", PIECES)
def test_a_connection_is_used_again_after_a_whole_reply_with_nothing_behind_it(
    reply: bytes, keeps_alive: bool, piece: int
) -> None:
    parser = parsed(reply, piece=piece)
    assert (parser.is_complete, parser.keeps_alive) == (True, keeps_alive)


def test_a_reply_to_head_has_no_body_whatever_its_headers_say() -> None:
    for head in (OK + b"Content-Length: 2\r\n\r\n", CHUNKED):
        parser = parsed(head, method="HEAD")
        assert (parser.is_complete, parser.keeps_alive) == (True, True)
        for stray in (b"{}", b"2\r\n{}\r\n", b"junk"):
            for piece in PIECES:
                parser = parsed(head + stray, method="HEAD", piece=piece)
                assert (parser.is_complete, parser.keeps_alive, bytes(parser.body)) == (True, False, b"")


@pytest.mark.parametrize(
    ("reply", "is_whole"),
    [
        pytest.param(OK + b"\r\nabc", True, id="until close"),
        pytest.param(OK + b"Content-Length: 4\r\n\r\nabc", False, id="too short"),
        pytest.param(CHUNKED + b"3\r\nabc\r\n", False, id="without a last chunk"),
        pytest.param(OK + b"X: y\r\n", False, id="in a head"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", False, id="behind an interim reply"),
        pytest.param(b"", False, id="nothing"),
    ],
)
def test_the_end_of_the_connection_ends_only_a_body_without_a_length(reply: bytes, is_whole: bool) -> None:
    assert parsed(reply).end() is is_whole


@pytest.mark.parametrize(
    ("first", "more"),
    [
        pytest.param(OK + b"X: ", b"y" * 1024, id="a header"),
        pytest.param(OK, b"X: yyyyy\r\n" * 128, id="a head"),
        pytest.param(b"", b"\r\n" * 512, id="line ends before a head"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 8, id="interim replies"),
        pytest.param(CHUNKED + b"1;", b"y" * 1024, id="a chunk extension"),
        pytest.param(CHUNKED, b"1;yyyyyyy\r\na\r\n" * 64, id="chunk extensions"),
        pytest.param(CHUNKED + b"0\r\n", b"X: yyyyy\r\n" * 128, id="trailers"),
    ],
)
def test_nothing_but_a_body_is_without_end(first: bytes, more: bytes) -> None:
    parser = ReplyParser(has_body=True)
    parser.feed(memoryview(first))

    def feed_on() -> None:
        for _ in range(1200):
            parser.feed(memoryview(more))

    with pytest.raises(NotHTTPError):
        feed_on()


@pytest.mark.parametrize("coding", ["chunked", "length"])
def test_a_body_may_be_as_long_as_it_likes(coding: str) -> None:
    parser = parsed(CHUNKED if coding == "chunked" else OK + b"Content-Length: 4194304\r\n\r\n")
    for _ in range(64):
        piece = b"x" * 65536
        parser.feed(memoryview(b"10000\r\n%b\r\n" % piece if coding == "chunked" else piece))
        assert parser.take() == piece
    assert parser.take() == b""


def test_a_body_may_come_in_as_many_small_chunks_as_it_likes() -> None:
    """What stands around them is more than a head may be; a gigabyte in pieces of 8 KiB has as much."""
    parser = parsed(CHUNKED)
    for _ in range(200):
        parser.feed(memoryview(b"1\r\na\r\n" * 1000))
    assert len(parser.body) == 200_000
