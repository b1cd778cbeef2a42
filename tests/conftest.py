"""Fixtures that more than one file of tests wants."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from slproxy.sandbox import Sandbox
from tests import rig


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A fake SalesLoft on a socket of its own."""
    async with rig.running_sandbox() as running:
        yield running
