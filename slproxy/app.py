"""App: builds everything, once, from the settings; owns the listening sockets, the reload and the shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from slproxy import config
from slproxy.access import credentials_of
from slproxy.auth import Credentials, check_found
from slproxy.changes import changes
from slproxy.clock import REAL_CLOCK, Clock
from slproxy.config import Settings
from slproxy.errors import StoreError, UpstreamUnreachable
from slproxy.forward import Drain, Forwarder, ReplayMemory, policy_of
from slproxy.inspect import Inspector, facts_of
from slproxy.listeners import Listeners
from slproxy.observe import Listener
from slproxy.own_pages import OwnPages
from slproxy.pace import Pacer, RedisBudget
from slproxy.retry import RetryBudget
from slproxy.server import Acceptor, Room, listen_at, listen_at_path, listen_openly, room_for
from slproxy.sockets import Peers, url_of
from slproxy.store import TokenStore, token_store
from slproxy.upstream import Upstream

if TYPE_CHECKING:
    from aiohttp import web

    from slproxy.server import OwnRequests, Server

log = logging.getLogger("slproxy")

# What requests in flight get after SIGTERM, in seconds (docs/contract.md, Shutdown).
GRACE = 30.0
# The largest page that the proxy reads for itself, in bytes: what answers may be anything.
MAX_PAGE = 1024 * 1024


def _room(settings: Settings) -> Room:
    return room_for(
        clients=settings.limits.max_connections,
        upstream=settings.upstream.max_connections,
        has_open_listener=settings.metrics.port is not None,
    )


class App:
    """One proxy: its upstream, its token, its policy and its server. Used inside ``async with``."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: TokenStore | None = None,
        clock: Clock = REAL_CLOCK,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.settings = settings
        self.listeners = Listeners(settings, given=listeners)
        self.observer = self.listeners.observer
        self._clock = clock
        self._stack = contextlib.AsyncExitStack()
        self._runner: web.ServerRunner | None = None
        self._acceptors: list[Acceptor] = []
        self._socket_file: Path | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self.urls: list[str] = []
        self.open_urls: list[str] = []

        self.store = token_store(settings) if store is None else store
        self._room = _room(settings)
        self.upstream = self._upstream(settings, self._room)
        self.credentials = self._credentials(settings, self.store, self.upstream)
        # Its own for each process: a chain of two proxies is no loop, the same one twice is.
        self._pseudonym = f"slproxy-{secrets.token_hex(4)}"
        self.pacer = self._pacer(settings)
        self._drain = Drain()
        self._retry_budget = RetryBudget(settings.retry.budget)
        self._replay_memory = ReplayMemory(settings.limits.replay_memory_total)
        self.own_pages = OwnPages(self, self.listeners.tally, now=clock.now, monotonic=clock.monotonic)
        self.forwarder = self._forwarder(settings)
        self.server: Server | None = None
        self.inspector = Inspector(
            settings.inspect,
            facts=lambda: facts_of(self.settings, self.credentials),
            pacer=self.pacer,
            requests=self._own_requests,
            now=clock.now,
            monotonic=clock.monotonic,
            call_later=clock.call_later,
        )
        self.listeners.include(self.inspector, wanted=settings.inspect.enabled)

    def _own_requests(self) -> OwnRequests:
        from slproxy.server import OwnRequests  # noqa: PLC0415  # loads aiohttp

        return OwnRequests(self.forwarder, observer=self.observer, monotonic=self._clock.monotonic)

    def _upstream(self, settings: Settings, room: Room) -> Upstream:
        rules = replace(settings.upstream, max_connections=room.upstream)
        return Upstream(rules, suspended=self._clock.suspended, jitter=self._clock.jitter)

    def _credentials(self, settings: Settings, store: TokenStore, upstream: Upstream) -> Credentials:
        return credentials_of(
            settings,
            store,
            observer=self.observer,
            post_form=upstream.post_form,
            time_source=self._clock,
        )

    def _pacer(self, settings: Settings) -> Pacer:
        return Pacer(
            settings.pace,
            limit_given=settings.is_set("pace.limit"),
            shared=self._shared_budget(settings),
            now=self._clock.now,
            monotonic=self._clock.monotonic,
            call_later=self._clock.call_later,
        )

    def _shared_budget(self, settings: Settings) -> RedisBudget | None:
        url = settings.store.redis_url
        return RedisBudget(url, settings.profile) if settings.store.kind == "redis" and url is not None else None

    def _forwarder(self, settings: Settings) -> Forwarder:
        return Forwarder(
            policy=policy_of(settings, pseudonym=self._pseudonym),
            credentials=self.credentials,
            upstream=self.upstream,
            pacer=self.pacer,
            observer=self.observer,
            audit=self.listeners.audit,
            api_url=settings.upstream.api_url,
            via=settings.upstream.via,
            sends_context=settings.upstream.trace_context,
            drain=self._drain,
            retry_budget=self._retry_budget,
            replay_memory=self._replay_memory,
            retry_settings=settings.retry,
            limits=settings.limits,
            own_page=self.own_pages.page,
            now=self._clock.now,
            monotonic=self._clock.monotonic,
            sleep=self._clock.sleep,
            jitter=self._clock.jitter,
        )

    async def __aenter__(self) -> Self:
        try:
            await self.upstream.__aenter__()
        except BaseException:
            await self.store.close()
            raise
        self._stack.callback(self.observer.close)
        self._stack.push_async_callback(self._close_parts)
        self._stack.push_async_callback(self.inspector.stop)
        try:
            await self.credentials.load()
            await check_found(self.settings, self.store, self.credentials.selection.grant)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Last in, first out: no new requests, the log is written, a renewal under way is kept, the upstream closes.
        # Whatever goes wrong with one of them, the others still happen.
        await self._stack.aclose()

    async def _close_parts(self) -> None:
        self._closing.set()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.store.close)
            stack.push_async_exit(self.upstream)
            stack.push_async_callback(self.pacer.close)
            stack.push_async_callback(self.credentials.close)
            if self._retiring:
                await asyncio.wait(self._retiring)

    async def reload(self, asked: Settings) -> tuple[list[str], list[str]]:
        """Put other settings in force; requests in flight end under those that they began with.

        Returns the keys that changed, and those that only a new start puts in force. Raises SlproxyError; then all is
        as it was.
        """
        change = changes(self.settings, asked, has_old_ca=self.upstream.has_old_ca)
        settings = change.settings
        # Beside what stays, the rest must still be safe: a socket that others reach keeps its key.
        config.check(settings)
        for each in (asked, settings):
            config.check_listening(each)
        room = _room(settings)
        store, upstream, credentials = self.store, self.upstream, self.credentials
        # What is replaced is closed when nothing uses it any more; if this fails, what is new is closed instead.
        new, retired = contextlib.AsyncExitStack(), contextlib.AsyncExitStack()
        async with new:
            if change.store:
                store = token_store(settings)
                new.push_async_callback(store.close)
                retired.push_async_callback(self.store.close)
            if change.upstream:
                upstream = await new.enter_async_context(self._upstream(settings, room))
                retired.push_async_exit(self.upstream)
            if change.credentials:
                await self.credentials.settled()
                credentials = self._credentials(settings, store, upstream)
                await credentials.load(had_login=self.credentials.login is not None)
                await check_found(settings, store, credentials.selection.grant)
                # A token that is only in memory must not be given up; nothing is awaited from here on.
                if not self.credentials.is_settled:
                    raise StoreError(
                        self.credentials.warning or "The token is being renewed just now.",
                        hint="Send SIGHUP again when the token is in its store.",
                    )
                if self.server is not None:
                    credentials.keep_fresh()
                    upstream.keep_warm()
                retired.push_async_callback(self.credentials.close)
                retired.push_async_callback(self._saved, self.credentials)
            shared = self.pacer.shared
            if change.store:
                shared = self._shared_budget(settings)
                if self.pacer.shared is not None:
                    retired.push_async_callback(self.pacer.shared.close)
            new.pop_all()
        if upstream is not self.upstream:
            self.upstream.stop_warming()
        self.settings, self.store, self.upstream, self.credentials = settings, store, upstream, credentials
        self.pacer.reconfigure(
            settings.pace,
            limit_given=settings.is_set("pace.limit"),
            shared=shared,
            is_same_team=change.is_same_team,
        )
        self._retry_budget.share = settings.retry.budget
        self._replay_memory.total = settings.limits.replay_memory_total
        self.forwarder = self._forwarder(settings)
        self.inspector.reconfigure(settings.inspect)
        self.listeners.include(self.inspector, wanted=settings.inspect.enabled)
        if self.server is not None:
            self.server.handle = self.forwarder.handle
            self.server.reconfigure(settings.limits, room, allow_origins=frozenset(settings.listen.allow_origins))
            retiring = asyncio.create_task(self._retire(self.server, retired), name="slproxy: close what was replaced")
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)
        else:
            await retired.aclose()
        return change.changed, change.later

    async def _saved(self, credentials: Credentials) -> None:
        """Wait until a token that a last request renewed is in its store, or the proxy shuts down."""
        while credentials.warning is not None and not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._closing.wait()

    async def _retire(self, server: Server, retired: contextlib.AsyncExitStack) -> None:
        """Close what a reload replaced, once the requests that are in flight now have ended."""
        await server.wait_for_in_flight()
        await retired.aclose()

    async def listen(self) -> None:
        """Start to renew in the background and to serve. Raises ConfigError when the address cannot be had."""
        # A command that only asks SalesLoft something does without aiohttp, which takes as long to load as all else.
        from aiohttp import web  # noqa: PLC0415

        from slproxy.server import Server, serve_openly  # noqa: PLC0415

        if self.listeners.audit is not None:
            self.listeners.audit.open()
        self.listeners.start_tracing(api_url=lambda: self.settings.upstream.api_url)
        self.credentials.keep_fresh()
        if self._room.clients < self.settings.limits.max_connections:
            log.warning(
                "%d connections instead of limits.max_connections (%d): this process may not open more files",
                self._room.clients,
                self.settings.limits.max_connections,
            )
        # Before the others: when one of those cannot be had, it may be another slproxy that has it, and is asked.
        open_sockets = await listen_openly(self.settings.metrics)
        for each in open_sockets:
            self._stack.callback(each.close)
        peers = Peers()
        self._stack.callback(peers.close)
        self.server = Server(
            self.forwarder.handle,
            self.settings.limits,
            monotonic=self._clock.monotonic,
            observer=self.observer,
            audit=self.listeners.audit,
            peers=peers,
            room=self._room,
            room_in=self.pacer.room_in,
            allow_origins=frozenset(self.settings.listen.allow_origins),
        )
        self._runner = web.ServerRunner(self.server, handle_signals=False, shutdown_timeout=0.1)
        self._stack.push_async_callback(self._runner.cleanup)
        await self._runner.setup()
        listen = self.settings.listen
        if listen.uds is not None:
            sockets = [listen_at_path(Path(listen.uds), listen.uds_mode)]
            self._socket_file = Path(listen.uds)
            self._stack.callback(self._remove_socket_file)
            self.urls = [f"unix:{listen.uds}"]
        else:
            sockets = await listen_at(listen.host, listen.port)
            self.urls = [url_of(*each.getsockname()[:2]) for each in sockets]
        for sock in sockets:
            self._acceptors.append(Acceptor(sock, self.server, self.server.admission.run_out))
            self._stack.callback(self._acceptors[-1].close)
        if open_sockets:
            # Up to the very end: it says that the proxy is draining.
            self.open_urls = await self._stack.enter_async_context(
                serve_openly(
                    open_sockets,
                    self.own_pages.open_page,
                    limits=self.settings.limits,
                    monotonic=self._clock.monotonic,
                    peers=peers,
                )
            )
        self.upstream.keep_warm()

    async def drain(self, *, at_once: asyncio.Event, again: str = "SIGTERM") -> None:
        """Wait for the requests in flight, for ``GRACE`` seconds or until ``at_once`` is set, which ``again`` does."""
        self._drain.begin(ends_at=self._clock.monotonic() + GRACE)
        self.pacer.drain(GRACE)
        self.upstream.stop_warming()
        self.inspector.end_streams()
        if self._runner is None or self.server is None:
            return
        # Before anybody can take its place: the file that another proxy makes from now on is that one's.
        self._remove_socket_file()
        for acceptor in self._acceptors:
            acceptor.close()
        if in_flight := self.server.in_flight:
            requests = "1 request" if in_flight == 1 else f"{in_flight} requests"
            log.info("shutting down: %s in flight, waiting up to %.0f s, %s again to stop now", requests, GRACE, again)
        else:
            log.info("shutting down: no request in flight")
        draining = asyncio.create_task(self.server.drain(GRACE))
        enough = asyncio.create_task(at_once.wait())
        await asyncio.wait({draining, enough}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, enough):
            task.cancel()
        await asyncio.gather(draining, enough, return_exceptions=True)

    def _remove_socket_file(self) -> None:
        if self._socket_file is not None:
            self._socket_file.unlink(missing_ok=True)
            self._socket_file = None

    async def ask(self, target: str, *, is_check: bool = False) -> tuple[int, bytes]:
        """Get a page of the API for the proxy itself, retries included; return status and body. Raises Problem.

        ``is_check``: only to see whether the token in use is still rejected.
        """
        reply, body = await self.forwarder.fetch(target, is_check=is_check), b""
        try:
            async for chunk in reply.chunks():
                body += chunk
                if len(body) > MAX_PAGE:
                    too_long = f"The reply to {target} is over {MAX_PAGE} bytes."
                    raise UpstreamUnreachable(too_long, maybe_sent=True, hint="Check upstream.api_url.")
            return reply.status, body
        finally:
            reply.close()

    @property
    def is_draining(self) -> bool:
        """Whether it is shutting down, and takes no more requests."""
        return self._drain.has_begun
