"""``slproxy doctor``: diagnoses problems on this machine, and suggests fixes.

It changes nothing, but may renew the token.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import email.utils
import json
import os
import shlex
import socket
import stat
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from slproxy import config
from slproxy.app import App
from slproxy.auth import parse_identity
from slproxy.cli import running_proxy
from slproxy.cli.describe import count, describe_other_users, describe_renewals
from slproxy.cli.logins import closing
from slproxy.cli.output import DONE, FAILED
from slproxy.config import SCHEMA, Settings, is_loopback
from slproxy.errors import ConfigError, SlproxyError, UpstreamFault
from slproxy.server import listen_at
from slproxy.sockets import Peers
from slproxy.store import token_store
from slproxy.upstream import Upstream

# A `Date` has a grain of a second, and the answer took a while; minutes break certificates and the clock minute.
CLOCK_TOLERANCE, CLOCK_BROKEN = 5.0, 120.0

State = Literal["ok", "warning", "broken", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One check: its result, and what to do about it."""

    check: str
    state: State
    detail: str
    remedy: str = ""

    def fields(self) -> dict[str, str]:
        """Return what ``doctor --json`` prints."""
        return asdict(self)


def finding_from(check: str, error: SlproxyError) -> Finding:
    """Return an error as a finding."""
    return Finding(check, "broken", error.detail, error.hint or "Fix what the message names.")


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Run the checks in order, nearest first: later ones depend on earlier ones."""
    yield _config(settings)
    for warning in settings.warnings:
        yield Finding("config", "warning", warning, "Fix or remove it.")
    for finding in _open_secrets(settings):
        yield finding
    yield await _store(settings)
    try:
        async with Upstream(settings.upstream) as upstream:
            async for finding in _hosts(settings, upstream):
                yield finding
    except ConfigError as error:
        yield finding_from("tls", error)
    yield await _credentials(settings)
    yield _users(settings)
    yield await _port(settings)


def _config(settings: Settings) -> Finding:
    given = sorted({str(origin) for origin in settings.origins.values() if origin.layer != "default"})
    return Finding("config", "ok", f"{count(len(given), 'setting')} set, the rest are defaults")


def _open_secrets(settings: Settings) -> list[Finding]:
    """Check that others cannot read the files that hold secrets."""
    found = []
    for key, origin in settings.origins.items():
        # A mounted file, or the file that names the secret itself, less its line.
        where = origin.path or (origin.place.rpartition(":")[0] if origin.layer in ("file", "dotenv") else "")
        if where and SCHEMA[key].secret:
            path = Path(where).absolute()
            with contextlib.suppress(OSError):
                if stat.S_IMODE(path.stat().st_mode) & 0o077:
                    detail = f"Others can read {path}, which holds {key}."
                    found.append(Finding("permissions", "warning", detail, f"chmod 600 {shlex.quote(str(path))}"))
    return found or [Finding("permissions", "ok", "no file with a secret can be read by others")]


async def _store(settings: Settings) -> Finding:
    try:
        async with closing(token_store(settings)) as store:
            record = await store.read()
    except SlproxyError as error:
        return finding_from("store", error)
    if record is None:
        return Finding("store", "ok", f"{store.description}: no login yet")
    return Finding("store", "ok", f"{store.description}, {store.encryption}, {describe_renewals(record.generation)}")


async def _hosts(settings: Settings, upstream: Upstream) -> AsyncIterator[Finding]:
    rules = settings.upstream
    for url, accounts in ((rules.api_url, False), (rules.accounts_url, True)):
        parts, name = urlsplit(url), "accounts" if accounts else "api"
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            detail = f"{name}: cannot resolve {host}: {error.strerror}."
            yield Finding("dns", "broken", detail, "Check the network and its DNS.")
            yield Finding("tls", "skipped", f"{name}: {host} has no address")
            continue
        yield Finding(
            "dns", "ok", f"{name}: {host} resolves to {', '.join(sorted({str(each[4][0]) for each in found}))}"
        )
        started = time.time()
        try:
            answer = await upstream.check_reachable(accounts=accounts)
        except UpstreamFault as error:
            fault = finding_from("tls", error)
            yield replace(fault, detail=f"{name}: {fault.detail}")
            continue
        secured = "its certificate is valid" if parts.scheme == "https" else "without TLS, on this machine"
        yield Finding("tls", "ok", f"{name}: {host} answers; {secured}")
        if not accounts:
            yield _clock(answer.headers.get("date", ""), host, between=(started, time.time()))


def _clock(date: str, host: str, *, between: tuple[float, float]) -> Finding:
    try:
        theirs = email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return Finding("clock", "skipped", f"{host} sends no Date")
    # The date was cut to the second, and made between these two.
    ahead = max(between[0] - (theirs + 1), 0.0) + min(between[1] - theirs, 0.0)
    if abs(ahead) <= CLOCK_TOLERANCE:
        return Finding("clock", "ok", f"agrees with {host}")
    return Finding(
        "clock",
        "broken" if abs(ahead) > CLOCK_BROKEN else "warning",
        f"This machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {host}.",
        "Set the clock: timedatectl set-ntp true",
    )


async def _credentials(settings: Settings) -> Finding:
    try:
        async with App(settings) as app:
            selection = app.credentials.selection
            reply = await app.ask("/v2/me.json")
            who = parse_identity(*reply, grant=selection.grant)
    except SlproxyError as error:
        return finding_from("credentials", error)
    return Finding("credentials", "ok", f"{selection.grant} ({selection.why}): {who}")


def _users(settings: Settings) -> Finding:
    """Check that other users of this machine cannot act with the token."""
    with Peers() as peers:
        if risk := describe_other_users(settings.listen, peers.untold):
            return Finding("users", "warning", risk, "Set listen.key.")
    return Finding("users", "ok", "other users of this machine are refused, unless they have the local key")


async def _port(settings: Settings) -> Finding:
    """Check that the proxy runs at its address, or could."""
    listen = settings.listen
    where = f"unix:{listen.uds}" if listen.uds else f"{listen.host}:{listen.port}"
    try:
        config.check_listening(settings)
    except ConfigError as error:
        return finding_from("port", error)
    if listen.uds is None and listen.key is None and not is_loopback(listen.host):
        return Finding("port", "warning", f"{where} can be reached by others without a key.", "Set listen.key.")
    answer = await asyncio.to_thread(running_proxy.status_of, listen)
    if answer is not None and "version" in answer:
        return Finding("port", "ok", f"slproxy {answer['version']} is up at {where}")
    if answer is not None:
        return Finding(
            "port",
            "broken",
            f"{where} is in use by another program, or wants another key.",
            "Choose another listen.port.",
        )
    if listen.uds:
        folder = Path(listen.uds).parent
        if os.access(folder, os.W_OK):
            return Finding("port", "ok", f"{where} is free")
        return Finding("port", "broken", f"{folder} is missing or not writable.", "Choose another listen.uds.")
    try:
        for each in await listen_at(listen.host, listen.port):
            each.close()
    except ConfigError as error:
        return Finding("port", "broken", error.detail, "Choose another listen.port.")
    return Finding("port", "ok", f"{where} is free")


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy doctor``."""
    return print_findings([finding async for finding in examine(settings)], as_json=args.json)


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print findings, and return the exit code: 1 if anything is broken."""
    if as_json:
        print(json.dumps([finding.fields() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.state:<8} {finding.check:<12} {finding.detail}")
            if finding.remedy and finding.state in ("warning", "broken"):
                print(f"{'':<21} -> {finding.remedy}")
    return FAILED if any(finding.state == "broken" for finding in findings) else DONE
