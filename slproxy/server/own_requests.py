"""Own requests: what is sent as if a client had, though no connection brought it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from slproxy.errors import ClientLeft, InternalError, Overloaded, Problem, UpstreamFault
from slproxy.forward import Answer, Forwarder, Inbound
from slproxy.observe import Exchange, Observer, loggable_path
from slproxy.server.response import REPORT, problem_answer

log = logging.getLogger("slproxy.server")


class OwnRequests:
    """Carries out requests, and tells of them as the server does of others."""

    def __init__(self, forwarder: Forwarder, *, observer: Observer, monotonic: Callable[[], float]) -> None:
        self._forwarder, self._observer, self._monotonic = forwarder, observer, monotonic

    def begin(self, inbound: Inbound) -> Exchange:
        """Tell of a request that begins. Raises Refused: it may not be passed on, and nobody was told."""
        self._forwarder.check(inbound)
        exchange = Exchange(
            method=inbound.method,
            path=loggable_path(inbound.target),
            began=self._monotonic(),
            id=self._observer.request_ids.new(),
            bytes_received=inbound.length or 0,
        )
        for tell in self._observer.request_began:
            tell(exchange)
        return exchange

    async def carry_out(self, inbound: Inbound, exchange: Exchange) -> None:
        """Send a request that was begun, and read what is answered to its end."""
        answer: Answer | None = None
        try:
            answer = await self._answer(inbound, exchange)
            exchange.status = answer.status
            own = answer.body if isinstance(answer.body, bytes) else b""
            if exchange.recording is not None:
                exchange.recording.answer = answer
            exchange.bytes_sent = len(own)
            if not isinstance(answer.body, bytes):
                async for chunk in answer.body.chunks():
                    exchange.bytes_sent += len(chunk)
        except (UpstreamFault, Overloaded) as fault:
            exchange.aborted = "upstream broke off"
            log.warning("%s %s: %s", exchange.method, exchange.path, fault.detail)
        except (asyncio.CancelledError, ClientLeft):
            exchange.aborted = "shut down"
            raise
        finally:
            if answer is not None:
                answer.close()
            exchange.ended = self._monotonic()
            for tell in self._observer.request_ended:
                tell(exchange)

    async def _answer(self, inbound: Inbound, exchange: Exchange) -> Answer:
        try:
            return await self._forwarder.handle(inbound, exchange)
        except ClientLeft:
            raise
        except Problem as problem:
            answered = problem
        except Exception:
            log.exception("a defect in slproxy", extra={"request_id": exchange.id})
            answered = InternalError("slproxy failed on this request.", hint=REPORT)
        exchange.error = answered.type
        return problem_answer(answered, request_id=exchange.id)
