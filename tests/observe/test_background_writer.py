"""What is logged is written by a thread: whole lines, in order, and never anybody who waits for them."""

from __future__ import annotations

import os
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from slproxy.observe.background_writer import DELAY, BackgroundWriter
from tests.support.waiting import PATIENCE, SLACK

# More than the thread takes at once, and than a pipe takes.
LONG = 100_000


def note(dropped: int) -> str:
    return f"{dropped} dropped\n"


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        for descriptor in (reading, writing):
            with suppress(OSError):
                os.close(descriptor)


def writer_to(descriptor: int, *, capacity: int = 1000) -> BackgroundWriter:
    return BackgroundWriter(descriptor, encoding="utf-8", note=note, capacity=capacity)


def all_of(reading: int) -> bytes:
    told = b""
    while part := os.read(reading, LONG):
        told += part
    return told


def test_the_lines_of_a_moment_are_one_write() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    with ours, theirs:
        writer = writer_to(ours.fileno())
        for number in range(50):
            writer.put(f"{number}\n")
        assert theirs.recv(LONG) == b"".join(b"%d\n" % number for number in range(50))
        writer.put("later\n")
        writer.hurry()
        assert theirs.recv(LONG) == b"later\n"
        assert writer.close(PATIENCE)


def test_a_line_waits_for_others_only_for_a_moment() -> None:
    with pipe() as (reading, writing):
        writer = writer_to(writing)
        began = time.monotonic()
        writer.put("one\n")
        assert os.read(reading, 100) == b"one\n"
        assert time.monotonic() - began > DELAY / 2, "others had the time to come with it"
        assert DELAY <= 0.1
        assert writer.close(PATIENCE)


def test_who_waits_for_the_lines_so_far_finds_them_written_and_waits_no_longer_for_a_reader_who_stalls() -> None:
    with pipe() as (reading, writing):
        writer = writer_to(writing)
        writer.put("a line\n")
        writer.settle(PATIENCE)
        assert select.select([reading], [], [], 0)[0]
        assert os.read(reading, 100) == b"a line\n"
        writer.put("x" * 200_000 + "\n")
        began = time.monotonic()
        writer.settle(0.05)
        assert 0.05 <= time.monotonic() - began < PATIENCE
        while not writer.close(0.01):
            os.read(reading, LONG)


def test_a_reader_who_stalls_keeps_nobody_waiting_and_is_told_how_much_it_missed_and_where() -> None:
    with pipe() as (reading, writing):
        writer = writer_to(writing, capacity=3)
        began = time.monotonic()
        writer.put("x" * LONG + "\n")
        writer.hurry()
        first = os.read(reading, 1)  # the thread is in the middle of that line, and stays there
        for number in range(10):
            writer.put(f"{number}\n")
        assert not writer.close(0.1), "its end is not waited for"
        assert time.monotonic() - began < SLACK
        told = first
        while not told.endswith(b"dropped\n"):
            told += os.read(reading, LONG)
        assert told == b"x" * LONG + b"\n0\n1\n2\n7 dropped\n"


def test_what_comes_after_the_drops_stands_after_their_number() -> None:
    with pipe() as (reading, writing):
        writer = writer_to(writing, capacity=2)
        writer.put("x" * LONG + "\n")
        writer.hurry()
        told = os.read(reading, 1)
        for number in range(5):
            writer.put(f"{number}\n")
        while b"1\n" not in told:
            told += os.read(reading, LONG)
        writer.put("later\n")
        assert writer.close(PATIENCE)
        os.close(writing)
        assert (told + all_of(reading)).replace(b"x", b"") == b"\n0\n1\n3 dropped\nlater\n"


def test_a_reader_who_has_gone_is_no_error_and_one_who_comes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(path, os.O_WRONLY)
    writer = writer_to(writing)
    os.close(reading)
    for number in range(3):
        writer.put(f"{number}\n")
    writer.hurry()
    time.sleep(2 * DELAY)  # what the thread does has no other sign
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer.put("later\n")
    assert writer.close(PATIENCE)
    assert os.read(reading, LONG) == b"3 dropped\nlater\n"
    os.close(writing)
    os.close(reading)


def test_after_a_full_disk_no_line_begins_in_the_middle_of_another(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writer = writer_to(descriptor)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow is cut short in the same way, and Python ignores the signal for it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (15, before[1]))
    try:
        writer.put("0123456789\n")
        writer.put("abcdefghij\n")
        writer.put("lost\n")
        writer.hurry()
        while path.stat().st_size < 15:
            time.sleep(0.001)
        writer.put("lost\n")
        writer.hurry()
        time.sleep(2 * DELAY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.put("later\n")
    assert writer.close(PATIENCE)
    assert path.read_text() == "0123456789\nabcdefghij\n2 dropped\nlater\n"
    os.close(descriptor)


def test_a_descriptor_that_somebody_has_made_non_blocking_gets_all_of_it() -> None:
    with pipe() as (reading, writing):
        os.set_blocking(writing, False)
        writer = writer_to(writing)
        for number in range(30):
            writer.put(f"{number}{'x' * 10_000}\n")
        writer.hurry()
        told = b""
        while told.count(b"\n") < 30:
            told += os.read(reading, LONG)
        assert [int(line.rstrip(b"x")) for line in told.splitlines()] == list(range(30))
        assert writer.close(PATIENCE)


@pytest.mark.parametrize(("encoding", "written"), [("utf-8", "ü\n".encode()), ("ascii", b"\\xfc\n")])
def test_what_the_encoding_lacks_is_escaped(encoding: str, written: bytes) -> None:
    with pipe() as (reading, writing):
        writer = BackgroundWriter(writing, encoding=encoding, note=note)
        writer.put("ü\n")
        assert writer.close(PATIENCE)
        assert os.read(reading, 100) == written
