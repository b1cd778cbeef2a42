"""The queue before the thread that exports: nobody waits for it, and it holds no more than it says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from slproxy.observe.tracing.span_queue import SpanQueue
from tests.support.waiting import PATIENCE, until


class Exporter:
    """Takes batches, as long as it is not held, and says what it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.fault = ""
        self.go_on = threading.Event()
        self.go_on.set()

    def export(self, batch: Sequence[int]) -> str:
        self.batches.append(list(batch))
        self.go_on.wait(PATIENCE)
        return self.fault


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    exporter = Exporter()
    yield exporter
    exporter.go_on.set()


def queue(exporter: Exporter, *, delay: float = PATIENCE, batch: int = 2, capacity: int = 4) -> SpanQueue[int]:
    return SpanQueue(exporter.export, host="collector:4318", delay=delay, batch=batch, capacity=capacity)


async def test_a_full_batch_goes_at_once_and_the_rest_at_the_end(exporter: Exporter) -> None:
    it = queue(exporter)
    for number in range(3):
        it.put(number)
    await until(lambda: exporter.batches[:1] == [[0, 1]])
    it.close(PATIENCE)
    assert [each for batch in exporter.batches for each in batch] == [0, 1, 2]


async def test_what_is_no_batch_goes_after_the_delay(exporter: Exporter) -> None:
    it = queue(exporter, delay=0.01)
    it.put(0)
    await until(lambda: exporter.batches == [[0]])
    it.close(PATIENCE)


async def test_a_collector_that_hangs_holds_up_nobody_and_costs_what_there_is_no_room_for(
    exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    it = queue(exporter)
    exporter.go_on.clear()
    it.put(0)
    it.put(1)
    await until(lambda: exporter.batches == [[0, 1]])
    began = time.monotonic()
    for number in range(2, 1000):
        it.put(number)
    assert time.monotonic() - began < PATIENCE / 2
    exporter.go_on.set()
    with caplog.at_level(logging.WARNING, "slproxy.tracing"):
        it.close(PATIENCE)
    assert exporter.batches == [[0, 1], [2, 3], [4, 5]]
    assert caplog.messages == ["collector:4318 takes traces, and has missed those of 994 requests"]


async def test_the_end_waits_no_longer_than_it_is_told(exporter: Exporter) -> None:
    it = queue(exporter)
    exporter.go_on.clear()
    for number in range(4):
        it.put(number)
    began = time.monotonic()
    it.close(0.05)
    assert 0.04 < time.monotonic() - began < PATIENCE / 2
    exporter.go_on.set()
    await until(lambda: not any(each.name == "slproxy: traces" for each in threading.enumerate()))
    assert exporter.batches == [[0, 1]], "nothing more is begun once the time is over"


async def test_a_collector_that_fails_is_a_warning_once_and_another_when_it_is_back(
    exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    exporter.fault = "it answers 401"
    with caplog.at_level(logging.WARNING, "slproxy.tracing"):
        it = queue(exporter, batch=1, capacity=100)
        for number in range(3):
            it.put(number)
        await until(lambda: len(exporter.batches) == 3)
        exporter.fault = ""
        it.put(3)
        it.close(PATIENCE)
    refused, back = caplog.messages
    assert refused == "collector:4318 takes no traces (it answers 401): they are lost until it does"
    assert back.startswith("collector:4318 takes traces, and has missed those of ")
