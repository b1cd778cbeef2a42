"""``slproxy doctor``: diagnoses problems on this machine, and suggests fixes.

It changes nothing, but may renew the token, and makes the file of the audit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import shlex
import stat
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from slproxy import config
from slproxy.cli import host_checks, running_proxy
from slproxy.cli.describe import count, describe_other_users, describe_renewals
from slproxy.cli.finding import DEADLINE, NO_ANSWER, Finding, finding_from
from slproxy.cli.identify import identify
from slproxy.cli.logins import closing
from slproxy.cli.output import DONE, FAILED, print_result
from slproxy.cli.own_request import address
from slproxy.cli.table import print_table
from slproxy.config import Settings, is_loopback
from slproxy.errors import ConfigError, SlproxyError
from slproxy.listeners import audit_of
from slproxy.observe import GREEN, GREY, RED, YELLOW
from slproxy.server import listen_at, listen_openly
from slproxy.sockets import Peers
from slproxy.store import token_store

# How long the check of the credentials may take, which may have to renew the token first, in seconds.
CREDENTIALS_DEADLINE = 15.0
PAINTS: Mapping[str, str] = MappingProxyType({"ok": GREEN, "warning": YELLOW, "broken": RED, "skipped": GREY})


async def examine(settings: Settings) -> list[Finding]:
    """Run the checks at the same time, but where one rests on another; return what they found, nearest first."""
    async with asyncio.TaskGroup() as group:
        store = group.create_task(_within("store", _store(settings)))
        online = group.create_task(_online(settings, store))
        port = group.create_task(_within("port", _port(settings)))
    return [
        _config(settings),
        *(Finding("config", "warning", warning, "Fix or remove it.") for warning in settings.warnings),
        *_open_secrets(settings),
        *_audit(settings),
        *store.result(),
        *online.result(),
        _users(settings),
        *port.result(),
    ]


async def _within(check: str, found: Coroutine[object, object, Finding], seconds: float = DEADLINE) -> list[Finding]:
    """Return the finding of a check, or that it had none in time."""
    try:
        async with asyncio.timeout(seconds):
            return [await found]
    except TimeoutError:
        return [
            Finding(check, "broken", f"no answer in {seconds:g} s", "Find out what hangs, such as a network drive.")
        ]


async def _online(settings: Settings, store: asyncio.Task[list[Finding]]) -> list[Finding]:
    """Check the two hosts, and then the credentials, which need both of them and the store."""
    findings = await host_checks.check_hosts(settings)
    await asyncio.wait({store})
    if any(each.check == "dns" and each.detail.endswith(NO_ANSWER) for each in findings):
        # Nor would these get one, and each try takes its time.
        return [*findings, Finding("credentials", "skipped", "no name can be resolved")]
    if any(each.check == "proxy" and each.state == "broken" for each in findings):
        # A password that is sent again and again locks an account.
        return [*findings, Finding("credentials", "skipped", "the proxy opens no connection")]
    return [*findings, *await _within("credentials", _credentials(settings), CREDENTIALS_DEADLINE)]


def _config(settings: Settings) -> Finding:
    given = sorted({str(origin) for origin in settings.origins.values() if origin.layer != "default"})
    return Finding("config", "ok", f"{count(len(given), 'setting')} set, the rest are defaults")


def _open_secrets(settings: Settings) -> list[Finding]:
    """Check that others cannot read the files that hold secrets."""
    found, schema = [], settings.schema
    for key, origin in settings.origins.items():
        # A mounted file, or the file that names the secret itself, less its line.
        where = origin.path or (origin.place.rpartition(":")[0] if origin.layer in ("file", "dotenv") else "")
        is_secret = schema[key].secret or (key == "upstream.proxy" and settings.upstream.proxy.has_password)
        if where and is_secret:
            path = Path(where).absolute()
            with contextlib.suppress(OSError):
                if stat.S_IMODE(path.stat().st_mode) & 0o077:
                    detail = f"Others can read {path}, which holds {key}."
                    found.append(Finding("permissions", "warning", detail, f"chmod 600 {shlex.quote(str(path))}"))
    return found or [Finding("permissions", "ok", "no file with a secret can be read by others")]


def _audit(settings: Settings) -> list[Finding]:
    """Check that the audit can be written, if there is to be one; its file is made."""
    if (audit := audit_of(settings)) is None:
        return []
    try:
        audit.open()
    except ConfigError as error:
        return [finding_from("audit", error)]
    audit.close()
    return [Finding("audit", "ok", f"{settings.log.audit} can be written")]


async def _store(settings: Settings) -> Finding:
    try:
        async with closing(token_store(settings)) as store:
            record = await store.read()
    except SlproxyError as error:
        return finding_from("store", error)
    if record is None:
        return Finding("store", "ok", f"{store.description}: no login yet")
    return Finding("store", "ok", f"{store.description}, {store.encryption}, {describe_renewals(record.generation)}")


async def _credentials(settings: Settings) -> Finding:
    try:
        found = await identify(settings)
    except SlproxyError as error:
        return finding_from("credentials", error)
    by = f"none here, but the proxy at {found.proxy} has some: " if found.proxy else ""
    return Finding("credentials", "ok", f"{by}{found.grant} ({found.why}): {found.who}")


def _users(settings: Settings) -> Finding:
    """Check that other users of this machine cannot act with the token."""
    with Peers() as peers:
        if risk := describe_other_users(settings.reach, peers.why_unknown):
            return Finding("users", "warning", risk, "Set listen.key.")
    return Finding("users", "ok", "other users of this machine are refused, unless they have the local key")


async def _port(settings: Settings) -> Finding:
    """Check that the proxy runs at its address, or could."""
    listen = settings.reach
    where = address(listen)
    try:
        config.check_listening(settings)
    except ConfigError as error:
        return finding_from("port", error)
    if listen.uds is None and listen.key is None and not is_loopback(listen.host):
        return Finding("port", "warning", f"{where} can be reached by others without a key.", "Set listen.key.")
    answer = await running_proxy.status_of(listen)
    if answer is not None and "version" in answer:
        known = f"pid {answer.get('pid')}, profile {answer.get('profile')}"
        return Finding("port", "ok", f"slproxy {answer['version']} is up at {where} ({known})")
    if answer is not None:
        detail = running_proxy.described(listen, answer) or f"{where} is in use by another program."
        return Finding("port", "broken", detail, f"Choose another {'listen.uds' if listen.uds else 'listen.port'}.")
    if listen.uds:
        return _socket_file(Path(listen.uds))
    try:
        for each in await listen_at(listen.host, listen.port):
            each.close()
    except ConfigError as error:
        return Finding("port", "broken", error.detail, "Choose another listen.port.")
    try:
        for each in await listen_openly(settings.metrics):
            each.close()
    except ConfigError as error:
        return Finding("port", "broken", error.detail, error.hint)
    return Finding("port", "ok", f"{where} is free")


def _socket_file(path: Path) -> Finding:
    """Check that the proxy could listen on a Unix socket on which nobody does."""
    broken = functools.partial(Finding, "port", "broken", remedy="Choose another listen.uds.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        return broken(f"{path.parent} is missing or not writable.")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return broken(f"{path} exists, and is no socket.")
    return Finding("port", "ok", f"unix:{path} is free")


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy doctor``."""
    return print_findings(await examine(settings), as_json=args.json)


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print findings, and return the exit code: 1 if anything is broken."""
    if as_json:
        print_result(json.dumps([finding.fields() for finding in findings], indent=2))
    else:
        rows: list[tuple[str, str, str]] = []
        for finding in findings:
            rows.append((finding.state, finding.check, finding.detail))
            if finding.remedy and finding.state in ("warning", "broken"):
                rows.append(("", "", f"-> {finding.remedy}"))
        print_table(rows, gap=1, least=8, paints=PAINTS)
    return FAILED if any(finding.state == "broken" for finding in findings) else DONE
