"""Requests made from a description of the API, sent to SalesLoft directly and through the proxy: the same answers.

Two sandboxes, alike and with their clocks stopped, so that an answer is the same to the byte when what led to it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from slproxy.sandbox import Options, Sandbox
from slproxy.sandbox import Request as Received
from slproxy.settings import Pace
from tests import rig

if TYPE_CHECKING:
    from schemathesis import Case
    from schemathesis.schemas import APIOperation

schemathesis = pytest.importorskip("schemathesis")

pytestmark = pytest.mark.heavy

EXAMPLES = 15
NOW = 1_795_000_010.0
# Enough that nothing is ever over budget: the clock stands still, and so the minute never ends.
OPTIONS = Options(budget=10**9)

# What the contract's section 4 takes off or adds on the way up, and on the way down.
CHANGED_UP = {"host", "authorization", "via", "connection", "accept-encoding"}
ADDED_DOWN = {"via", "server-timing"}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}

DESCRIPTION = schemathesis.openapi.from_path(Path(__file__).with_name("openapi.yaml"))
OPERATIONS: list[APIOperation] = [result.ok() for result in DESCRIPTION.get_all_operations()]
