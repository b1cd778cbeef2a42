"""Put SalesLoft on the wire: read each request whole, and send what it answers, or fail as a fault asks."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import parse_qsl

from aiohttp import web

from . import control, pages
from .api import Arrival
from .body import READABLE, BodyError, fields
from .crud import Answer
from .faults import Fault, FaultError
from .ledger import Request, TokenRequest
from .oauth import DESCRIPTIONS, Ask, Redirect, Refusal, refusal
from .salesloft import OVER_BUDGET, SalesLoft

Sleep = Callable[[float], Awaitable[None]]

SECRET = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 §5.1


class Site:
    """Answer every request on the one port that stands for both of SalesLoft's hosts."""

    def __init__(self, salesloft: SalesLoft, sleep: Sleep) -> None:
        """Keep what is asked, and how a slow answer waits."""
        self._salesloft = salesloft
        self._sleep = sleep

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; its target is taken as it came, for a router would decode it."""
        try:
            return await self._respond(request, origin_form(request.raw_path))
        except (ConnectionError, web.RequestPayloadError):
            return closed(request)  # the client has left, or sent a body that is none

    async def _respond(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        path = target.partition("?")[0]
        if path in ("/oauth/authorize", "/oauth/token", "/oauth/revoke"):
            return await self._oauth(request, path, target.partition("?")[2])
        if path == "/_sandbox" or path.startswith("/_sandbox/"):
            body, _, _ = await taken(request)
            status, reply = control.respond(self._salesloft, request.method, path, body)
            return web.json_response(reply, status=status, dumps=pretty)
        return await self._api(request, target)

    async def _api(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        ledger = self._salesloft.ledger
        pairs = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
        entry = ledger.add(
            Request(
                method=request.method,
                target=request.raw_path,
                headers=pairs,
                at=self._salesloft.now(),
                token=bearer(request.headers.getall("Authorization", [])),
            )
        )
        body, length, digest = await taken(request)
        entry = ledger.fill(entry, entry.with_body(body, length, digest))
        stop, headers = self._salesloft.admit(replace(entry, target=target), request.headers.get("X-Sandbox-Fault"))
        if isinstance(stop, Fault) and stop.name == "reset":
            return reset(request)
        if isinstance(stop, Fault) and stop.name == "slow":
            await self._sleep(stop.value)
        if isinstance(stop, Fault) and stop.name in ("status", "html-500"):
            response = failure(stop, headers)
        else:
            arrival = Arrival(
                method=request.method,
                target=target,
                content_type=request.headers.get("Content-Type", ""),
                encoding=request.headers.get("Content-Encoding", ""),
                body=body,
            )
            response = reply(stop if isinstance(stop, Answer) else self._salesloft.answer(arrival), headers)
        ledger.fill(entry, replace(entry, status=response.status))
        if isinstance(stop, Fault) and stop.name == "reset-mid-body":
            return await reset_mid_body(request, response)
        return response

    async def _oauth(self, request: web.BaseRequest, path: str, query: str) -> web.StreamResponse:
        body, _, _ = await taken(request)
        params = dict(parse_qsl(query, keep_blank_values=True))
        try:
            params |= {
                name: str(value)
                for name, value in fields(body, request.headers.get("Content-Type", ""), "").items()
                if value is not None
            }
        except BodyError:
            return json_reply(*refusal("invalid_request"))
        match request.method, path:
            case "GET" | "HEAD" | "POST", "/oauth/authorize":
                return self._authorize(params)
            case "POST", "/oauth/token":
                return await self._token(request, params)
            case "POST", "/oauth/revoke":
                self._salesloft.revoke(params.get("token", ""))
                return json_reply(200, {})
            case _:
                return json_reply(404, {"error": "Not Found"})

    def _authorize(self, params: Mapping[str, str]) -> web.Response:
        match self._salesloft.oauth.authorize(params, self._salesloft.now()):
            case Redirect(location):
                return web.Response(status=302, headers={"Location": location, **SECRET})
            case Refusal(status, reason):
                return html_reply(status, pages.refused(reason))
            case Ask(asked):
                return html_reply(200, pages.consent(asked))

    async def _token(self, request: web.BaseRequest, params: dict[str, str]) -> web.StreamResponse:
        salesloft, ledger = self._salesloft, self._salesloft.token_ledger
        entry = ledger.add(TokenRequest(grant_type=params.get("grant_type", ""), form=params, at=salesloft.now()))
        header = request.headers.get("X-Sandbox-Fault")
        try:
            fault = salesloft.faults.strike(on="token", method="POST", target="/oauth/token", header=header)
        except FaultError as bad:
            response: web.Response | None = json_reply(400, {"error": str(bad), "accepted": bad.accepted})
        else:
            response = await self._granted(params, request.headers.get("Authorization", ""), fault)
        if response is None:
            return closed(request)
        ledger.fill(entry, replace(entry, status=response.status))
        return response

    async def _granted(self, params: Mapping[str, str], authorization: str, fault: Fault | None) -> web.Response | None:
        """Return the reply to a token request, or None where a fault keeps it from being sent."""
        name, value = (fault.name, fault.value) if fault else ("", 0.0)
        if fault and name == "status":
            return failure(fault, {})
        if name == "html-200":
            return html_reply(200, pages.BROKEN)
        if name in DESCRIPTIONS:
            return json_reply(*refusal(name))
        if name == "down":
            return None
        if name == "slow-before":
            await self._sleep(value)
        granted = self._salesloft.oauth.exchange(params, authorization, self._salesloft.now())
        if name == "slow":
            await self._sleep(value)
        return None if name == "lost" else json_reply(*granted)


def origin_form(target: str) -> str:
    """Return the path and query of a target, which may come in absolute form (RFC 9112 §3.2.2)."""
    scheme, found, rest = target.partition("://")
    if found and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return target


def bearer(values: list[str]) -> str | None:
    """Return the token of the Authorization headers; several are joined, and so are no good token."""
    scheme, _, token = ",".join(values).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def taken(request: web.BaseRequest) -> tuple[bytes, int, str]:
    """Read a body to its end; return what is readable of it, its length and its SHA-256.

    Not `request.read()`: a body of any length is taken, and need not be held.
    """
    kept, length, digest = bytearray(), 0, hashlib.sha256()
    async for chunk in request.content.iter_any():
        length += len(chunk)
        digest.update(chunk)
        if length <= READABLE:
            kept += chunk
    return bytes(kept) if length <= READABLE else b"", length, digest.hexdigest()


def reply(answer: Answer, headers: Mapping[str, str]) -> web.Response:
    """Return an API answer as a response."""
    made = {**headers, **answer.headers}
    if answer.body is None:
        return web.Response(status=answer.status, headers=made)
    return web.json_response(answer.body, status=answer.status, headers=made)


def failure(fault: Fault, headers: Mapping[str, str]) -> web.Response:
    """Return the response that a `status` or `html-500` fault asks for."""
    if fault.name == "html-500":
        return web.Response(status=500, text=pages.BROKEN, content_type="text/html", headers=headers)
    status = int(fault.value)
    made = {**headers, **({"Retry-After": fault.retry_after} if fault.retry_after else {})}
    if status in (204, 205, 304):
        return web.Response(status=status, headers=made)
    phrase = next((known.phrase for known in HTTPStatus if known == status), "Failure")
    return web.json_response({"error": OVER_BUDGET if status == 429 else phrase}, status=status, headers=made)


def json_reply(status: int, body: Mapping[str, object]) -> web.Response:
    """Return an answer of the accounts host."""
    return web.json_response(body, status=status, headers=SECRET)


def html_reply(status: int, page: str) -> web.Response:
    """Return a page of the accounts host; it cannot be framed, so that no other page can click Allow."""
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
    return web.Response(status=status, text=page, content_type="text/html", headers={**SECRET, **policy})


def pretty(value: object) -> str:
    """Write JSON for people."""
    return json.dumps(value, indent=2) + "\n"


def closed(request: web.BaseRequest) -> web.Response:
    """Close the connection without a reply; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def reset(request: web.BaseRequest) -> web.Response:
    """Send RST: a lingering time of 0 makes close() drop what was not sent (socket(7))."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def reset_mid_body(request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
    """Send the headers and half of the body, then RST; at once where there is no body."""
    body = response.body
    if request.method == "HEAD" or not isinstance(body, bytes) or not body:
        return reset(request)
    cut = web.StreamResponse(status=response.status, headers=response.headers)
    cut.content_length = len(body)
    await cut.prepare(request)
    await cut.write(body[: len(body) // 2])
    await asyncio.sleep(0)  # one turn of the loop, for what is written to leave
    reset(request)
    return cut
