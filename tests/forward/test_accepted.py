"""Accepted headers: decided once for the same bytes, in little memory, and never where more than the bytes counts."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from slproxy.config import ListenSettings, Secret
from slproxy.forward.accepted import CAPACITY, KnownHeaders, accepted, digest_of
from slproxy.http import RawHeaders, by_name
from tests.support.pair import LOCAL_KEY, asked, pair, problem
from tests.support.raw_http import get

ALLOWED = "https://app.example.com"


def headers_of(*lines: tuple[bytes, bytes]) -> RawHeaders:
    return ((b"Host", b"localhost"), (b"Accept", b"*/*"), *lines)


def remembered(known: KnownHeaders, headers: RawHeaders) -> None:
    known.remember(digest_of(headers), accepted(headers, by_name(headers)))


def small_ones() -> Iterator[RawHeaders]:
    return (headers_of((b"X-Request-Id", b"%d" % number)) for number in range(5_000))


def large_values() -> Iterator[RawHeaders]:
    return (headers_of((b"X-A", b"%d" % number + b"v" * 60_000)) for number in range(300))


def large_names() -> Iterator[RawHeaders]:
    return (headers_of((b"X-%d" % number + b"n" * 60_000, b"1")) for number in range(300))


def large_agents() -> Iterator[RawHeaders]:
    return (headers_of((b"User-Agent", b"%d/" % number + b"a" * 60_000)) for number in range(300))


@pytest.mark.parametrize("heads", [small_ones, large_values, large_names, large_agents])
def test_however_many_heads_come_what_is_remembered_of_them_stays_small(
    heads: Callable[[], Iterator[RawHeaders]],
) -> None:
    known = KnownHeaders()
    tracemalloc.start()
    try:
        for headers in heads():
            remembered(known, headers)
        assert tracemalloc.get_traced_memory()[0] < 1.2 * CAPACITY
    finally:
        tracemalloc.stop()
    assert known.size <= CAPACITY


def test_the_newest_are_known_and_the_oldest_forgotten() -> None:
    known = KnownHeaders()
    heads = list(small_ones())
    for headers in heads:
        remembered(known, headers)
    assert known.get(digest_of(heads[-1])) == accepted(heads[-1], by_name(heads[-1]))
    assert known.get(digest_of(heads[0])) is None


def test_no_two_blocks_of_headers_have_one_digest() -> None:
    blocks: list[RawHeaders] = [
        (),
        ((b"a", b"b"),),
        ((b"ab", b""),),
        ((b"", b"ab"),),
        ((b"a", b""), (b"b", b"")),
        ((b"a", b""), (b"", b"b")),
        ((b"A", b"b"),),
        ((b"a", b"b"), (b"a", b"b")),
    ]
    assert len({digest_of(block) for block in blocks}) == len(blocks)


def test_nothing_that_stops_here_is_remembered() -> None:
    headers = headers_of((b"Authorization", b"marker"), (b"Cookie", b"marker"), (b"X-Slproxy-Key", b"marker"))
    assert b"marker" not in digest_of(headers)
    assert b"marker" not in accepted(headers, by_name(headers)).onward


async def test_what_was_refused_is_refused_again_and_what_was_let_in_is_checked_anew_after_a_reload() -> None:
    async with pair(listen=ListenSettings(port=0, key=Secret(LOCAL_KEY))) as (upstream, clients):
        good, bad = get("/v2/a", f"X-Slproxy-Key: {LOCAL_KEY}"), get("/v2/a", "X-Slproxy-Key: another")
        for _ in range(2):
            problem(await asked(clients.urls[0], bad), status=401, kind="key-required")
            assert (await asked(clients.urls[0], good)).head.status == 200
        app = clients.app
        await app.reload(replace(app.settings, listen=replace(app.settings.listen, key=Secret("another"))))
        problem(await asked(clients.urls[0], good), status=401, kind="key-required")
        assert (await asked(clients.urls[0], bad)).head.status == 200
    assert len(upstream.seen) == 3


async def test_headers_that_were_let_in_open_no_other_target_or_method() -> None:
    async with pair() as (upstream, clients):
        for method, target, status in (
            ("GET", "/v2/a", 200),
            ("GET", "/v1/a", 404),
            ("GET", "/v2/../a", 400),
            ("TRACE", "/v2/a", 405),
            ("GET", "/_slproxy/none", 404),
            ("GET", "/v2/b", 200),
        ):
            assert (await asked(clients.urls[0], get(target, method=method))).head.status == status, target
    assert [each.head.target for each in upstream.seen] == ["/v2/a", "/v2/b"]


async def test_a_preflight_is_answered_here_although_its_headers_are_known() -> None:
    said = [f"Origin: {ALLOWED}", "Access-Control-Request-Method: PUT"]
    async with pair(listen=ListenSettings(port=0, allow_origins=(ALLOWED,))) as (upstream, clients):
        assert (await asked(clients.urls[0], get("/v2/a", *said))).head.status == 200
        assert (await asked(clients.urls[0], get("/v2/a", *said, method="OPTIONS"))).head.status == 204
    assert len(upstream.seen) == 1
