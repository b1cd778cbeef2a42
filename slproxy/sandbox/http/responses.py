"""Responses: JSON and HTML, and the failures that a fault asks for."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from slproxy.sandbox.api.call import ApiResponse
from slproxy.sandbox.http import pages
from slproxy.sandbox.limits.faults import Fault
from slproxy.sandbox.salesloft import OVER_BUDGET

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 §5.1


def api_response(found: ApiResponse, headers: Mapping[str, str]) -> web.Response:
    """Return the API's response, with more headers."""
    made = {**headers, **found.headers}
    if found.body is None:
        return web.Response(status=found.status, headers=made)
    return web.json_response(found.body, status=found.status, headers=made)


def fault_response(fault: Fault, headers: Mapping[str, str]) -> web.Response:
    """Return the response that a `status` or `html-500` fault asks for."""
    if fault.name == "html-500":
        return web.Response(status=500, text=pages.BROKEN, content_type="text/html", headers=headers)
    status = int(fault.value)
    made = {**headers, **({"Retry-After": fault.retry_after} if fault.retry_after else {})}
    if status in (204, 205, 304):
        return web.Response(status=status, headers=made)
    phrase = next((known.phrase for known in HTTPStatus if known == status), "Failure")
    return web.json_response({"error": OVER_BUDGET if status == 429 else phrase}, status=status, headers=made)


def json_response(status: int, body: Mapping[str, object]) -> web.Response:
    """Return JSON of the accounts host."""
    return web.json_response(body, status=status, headers=NO_STORE)


def html_response(status: int, page: str) -> web.Response:
    """Return a page of the accounts host; it cannot be framed, so no other page can click Allow."""
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
    return web.Response(status=status, text=page, content_type="text/html", headers={**NO_STORE, **policy})


def indented(value: object) -> str:
    """Return indented JSON."""
    return json.dumps(value, indent=2) + "\n"


def close_connection(request: web.BaseRequest) -> web.Response:
    """Close the connection without a response; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def send_reset(request: web.BaseRequest) -> web.Response:
    """Send RST: a lingering time of 0 makes close() drop what was not sent (socket(7))."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def send_reset_mid_body(request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
    """Send the headers and half of the body, then RST; at once where there is no body."""
    body = response.body
    if request.method == "HEAD" or not isinstance(body, bytes) or not body:
        return send_reset(request)
    cut = web.StreamResponse(status=response.status, headers=response.headers)
    cut.content_length = len(body)
    await cut.prepare(request)
    await cut.write(body[: len(body) // 2])
    await asyncio.sleep(0)  # one turn of the loop, for what is written to leave
    send_reset(request)
    return cut
