"""The names of ``tests.support`` in one place, until their users import them from where they stand."""

from __future__ import annotations

from tests.support.clock import FakeTime
from tests.support.programs import Program, environment, program, run, spawn
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Head, Message, get, port_of, raw, read_message, reply
from tests.support.redis import redis_server
from tests.support.sandboxes import login_at, running_sandbox, sandbox_auth
from tests.support.scripted import Handler, ScriptedUpstream, replies
from tests.support.waiting import PATIENCE, until

__all__ = [
    "API_KEY",
    "PATIENCE",
    "FakeTime",
    "Handler",
    "Head",
    "Message",
    "Program",
    "ScriptedUpstream",
    "environment",
    "get",
    "login_at",
    "port_of",
    "program",
    "proxy",
    "raw",
    "read_message",
    "redis_server",
    "replies",
    "reply",
    "run",
    "running_sandbox",
    "sandbox_auth",
    "settings_for",
    "spawn",
    "until",
]
