"""Respond: an answer sent to the client as it arrives, no faster than the client reads it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from slproxy.errors import Overloaded, UpstreamFault
from slproxy.forward import Answer
from slproxy.observe import Exchange
from slproxy.server.client_request import ClientRequest
from slproxy.server.connection import ClientConnection
from slproxy.server.response import Response, reset

log = logging.getLogger("slproxy.server")

# Why an answer is cut off that the audit has no line of, where it must (log.audit_required).
NOT_AUDITED = "not audited"


async def respond(
    request: ClientRequest,
    connection: ClientConnection,
    answer: Answer,
    exchange: Exchange,
    *,
    last: bool,
    may_end: Callable[[Exchange], bool],
) -> Response:
    """Send an answer; the ``last`` one closes.

    ``may_end`` is asked before the last byte goes, whatever ends the answer: a length that is reached, the last chunk,
    or the end of the connection.
    """
    response, body = Response(connection, request, answer, last), answer.body
    if isinstance(body, bytes):
        exchange.bytes_sent = 0 if request.method == "HEAD" else len(body)
        # The connection writes its end, which is all of it.
        return response if may_end(exchange) else _cut_off(response, connection, exchange, NOT_AUDITED)
    try:
        last_piece = body.read_nowait()
        exchange.bytes_sent, is_whole = len(last_piece), body.ended
        if not is_whole:
            # The head does not wait for the body.
            await response.write(last_piece)
            last_piece = b""
            async for chunk in body.chunks():
                exchange.bytes_sent += len(chunk)
                if body.ended:
                    last_piece = chunk
                else:
                    await response.write(chunk)
    except (UpstreamFault, Overloaded) as fault:
        log.warning("%s %s: %s", exchange.method, exchange.path, fault.detail, extra={"request_id": exchange.id})
        why = "upstream broke off" if isinstance(fault, UpstreamFault) else "evicted"
        return _cut_off(response, connection, exchange, why)
    if not may_end(exchange):
        return _cut_off(response, connection, exchange, NOT_AUDITED)
    await response.write_eof(last_piece)
    return response


def _cut_off(response: Response, connection: ClientConnection, exchange: Exchange, why: str) -> Response:
    """Reset the connection of an answer that is not to look whole."""
    exchange.aborted, exchange.line = why, ""
    reset(connection.transport)
    return response
