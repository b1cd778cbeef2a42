"""Event loops: a test of what is close to them runs in each."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Coroutine

import pytest

from tests.support.waiting import PATIENCE

LOOPS = ["asyncio", "uvloop"]


def in_loop(name: str, work: Coroutine[None, None, None]) -> None:
    """Run a test in an event loop of this kind."""
    if name == "uvloop" and importlib.util.find_spec("uvloop") is None:
        work.close()
        pytest.skip("uvloop is not installed")
    factory = asyncio.new_event_loop
    if name == "uvloop":
        import uvloop  # noqa: PLC0415  # optional

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(work, PATIENCE))
