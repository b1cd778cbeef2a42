"""Fake SalesLoft to develop and test against; it shares no code with the proxy, so that it is an independent witness.

``sandbox`` listens, ``http`` reads and writes, ``salesloft`` decides in which order a request meets ``oauth``,
``limits`` and ``api``, ``data`` is what they work on.
"""

from slproxy.sandbox.limits.faults import Fault, FaultError
from slproxy.sandbox.options import Options
from slproxy.sandbox.request_log import RecordedRequest
from slproxy.sandbox.sandbox import Sandbox, running

__all__ = [
    "Fault",
    "FaultError",
    "Options",
    "RecordedRequest",
    "Sandbox",
    "running",
]
