"""Checks of SalesLoft's two hosts, for ``doctor``: the way there, TLS, and the clock that they have."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from slproxy.cli.finding import DEADLINE, NO_ANSWER, Finding, finding_from
from slproxy.cli.process import in_daemon_thread
from slproxy.config import Settings
from slproxy.errors import ConfigError, UpstreamFault
from slproxy.http import parsed_date
from slproxy.upstream import Upstream

# A `Date` has a grain of a second, and the answer took a while; minutes break certificates and the clock minute.
CLOCK_TOLERANCE, CLOCK_BROKEN = 5.0, 120.0
CHECK_DNS = "Check the network and its DNS; behind a company's proxy, set HTTPS_PROXY or upstream.proxy to it."


async def check_hosts(settings: Settings) -> list[Finding]:
    """Look how each host is reached, and whether it is; what could not be looked at is told as well."""
    try:
        async with Upstream(settings.upstream) as upstream, asyncio.TaskGroup() as group:
            hosts = [
                group.create_task(_host(upstream, settings, name, url, accounts=accounts))
                for name, url, accounts in _hosts(settings)
            ]
    except* ConfigError as errors:
        wrong = [finding_from("tls", error) for error in errors.exceptions if isinstance(error, ConfigError)]
        findings = [*_direct(settings), *_unreached(settings), *wrong]
    else:
        findings = [*_direct(settings), *(finding for host in hosts for finding in host.result())]
    if not any(finding.check == "clock" for finding in findings):
        findings.append(Finding("clock", "skipped", "the API gives no Date to compare with"))
    return findings


def _unreached(settings: Settings) -> Iterator[Finding]:
    for name, url, _ in _hosts(settings):
        host = urlsplit(url).hostname or ""
        check = "dns" if settings.upstream.proxy.proxy_for(host) is None else "proxy"
        yield Finding(check, "skipped", f"{name}: {host} is not asked, since none could be trusted")


def _direct(settings: Settings) -> list[Finding]:
    """Say which of the hosts are reached without an egress proxy, and why."""
    egress = settings.upstream.proxy
    hosts = {name: urlsplit(url).hostname or "" for name, url, _ in _hosts(settings)}
    whys = {name: egress.why(host) for name, host in hosts.items() if egress.proxy_for(host) is None}
    if len(whys) == len(hosts) and len({*whys.values()}) == 1:
        return [Finding("proxy", "ok", f"none is used: {next(iter(whys.values()))}")]
    return [Finding("proxy", "ok", f"{name}: reached directly, since {why}") for name, why in whys.items()]


def _hosts(settings: Settings) -> list[tuple[str, str, bool]]:
    """Return the name of each host, its URL, and whether it is the accounts host."""
    rules = settings.upstream
    return [("api", rules.api_url, False), ("accounts", rules.accounts_url, True)]


async def _host(upstream: Upstream, settings: Settings, name: str, url: str, *, accounts: bool) -> list[Finding]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    proxy = settings.upstream.proxy.proxy_for(host)
    if proxy is None:
        first = await _dns(name, host, port)
    else:
        route = f"{name}: by way of {proxy} ({settings.origin('upstream.proxy')})"
        first = await _proxy(upstream, name, route, accounts=accounts)
    if first.state != "ok":
        return [
            first,
            Finding("tls", "skipped", f"{name}: {host} {'has no address' if proxy is None else 'is not reached'}"),
        ]
    findings = [first]
    started = time.time()
    try:
        async with asyncio.timeout(DEADLINE):
            answer = await upstream.check_reachable(accounts=accounts)
    except TimeoutError:
        detail = f"{name}: {host} does not answer: nothing came in {DEADLINE:g} s."
        return [
            *findings,
            Finding("tls", "broken", detail, "Check the network, and what stands in it, such as a proxy."),
        ]
    except UpstreamFault as error:
        fault = finding_from("tls", error)
        return [*findings, replace(fault, detail=f"{name}: {fault.detail}")]
    secured = "its certificate is valid" if parts.scheme == "https" else "without TLS, on this machine"
    findings.append(Finding("tls", "ok", f"{name}: {host} answers; {secured}"))
    if not accounts:
        findings.append(_clock(answer.headers.get("date", ""), host, between=(started, time.time())))
    return findings


async def _dns(name: str, host: str, port: int) -> Finding:
    try:
        # In a thread that nobody waits for at the end: what asks a name server may hang for minutes.
        async with asyncio.timeout(DEADLINE):
            found = await in_daemon_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except TimeoutError:
        return Finding("dns", "broken", f"{name}: {host}: {NO_ANSWER}", CHECK_DNS)
    except OSError as error:
        return Finding("dns", "broken", f"{name}: cannot resolve {host}: {error.strerror}.", CHECK_DNS)
    addresses = ", ".join(sorted({str(each[4][0]) for each in found}))
    return Finding("dns", "ok", f"{name}: {host} resolves to {addresses}")


async def _proxy(upstream: Upstream, name: str, route: str, *, accounts: bool) -> Finding:
    """Have the egress proxy open a connection: it resolves the host's name itself."""
    try:
        async with asyncio.timeout(DEADLINE):
            await upstream.check_proxy(accounts=accounts)
    except TimeoutError:
        return Finding("proxy", "broken", f"{route}: {NO_ANSWER}", "Find out whether the proxy is up.")
    except UpstreamFault as error:
        fault = finding_from("proxy", error)
        return replace(fault, detail=f"{name}: {fault.detail}")
    return Finding("proxy", "ok", route)


def _clock(date: str, host: str, *, between: tuple[float, float]) -> Finding:
    if (theirs := parsed_date(date)) is None:
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
