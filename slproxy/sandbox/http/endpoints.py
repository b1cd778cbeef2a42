"""Endpoints: each request is read whole, decided on and answered, or fails as a fault asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from urllib.parse import parse_qsl

from aiohttp import web

from slproxy.sandbox.api.body import BodyError, body_fields
from slproxy.sandbox.api.call import ApiResponse
from slproxy.sandbox.api.routing import IncomingRequest
from slproxy.sandbox.http import control, pages
from slproxy.sandbox.http.reading import bearer, origin_form, read_body
from slproxy.sandbox.http.responses import (
    NO_STORE,
    api_response,
    close_connection,
    fault_response,
    html_response,
    indented,
    json_response,
    send_reset,
    send_reset_mid_body,
)
from slproxy.sandbox.limits.faults import Fault, FaultError
from slproxy.sandbox.oauth.endpoints import DESCRIPTIONS, AskConsent, AuthorizationError, RedirectBack, refusal
from slproxy.sandbox.request_log import RecordedRequest, RecordedTokenRequest
from slproxy.sandbox.salesloft import SalesLoft

Sleep = Callable[[float], Awaitable[None]]


class Endpoints:
    """Answer every request on the one port that stands for both of SalesLoft's hosts."""

    def __init__(self, salesloft: SalesLoft, sleep: Sleep) -> None:
        """Keep who decides, and how a slow response waits."""
        self._salesloft = salesloft
        self._sleep = sleep

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; its target is taken as it came: a router would decode it."""
        try:
            return await self._respond(request, origin_form(request.raw_path))
        except (ConnectionError, web.RequestPayloadError):
            return close_connection(request)  # the client has left, or sent a body that is none

    async def _respond(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        path = target.partition("?")[0]
        if path in ("/oauth/authorize", "/oauth/token", "/oauth/revoke"):
            return await self._oauth(request, path, target.partition("?")[2])
        if path == "/_sandbox" or path.startswith("/_sandbox/"):
            body, _, _ = await read_body(request)
            status, document = control.response_to(self._salesloft, request.method, path, body)
            return web.json_response(document, status=status, dumps=indented)
        return await self._api(request, target)

    async def _api(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        log = self._salesloft.request_log
        pairs = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
        entry = log.add(
            RecordedRequest(
                method=request.method,
                target=request.raw_path,
                headers=pairs,
                at=self._salesloft.now(),
                token=bearer(request.headers.getall("Authorization", [])),
            )
        )
        body, length, digest = await read_body(request)
        entry = log.fill(entry, entry.with_body(body, length, digest))
        stop, headers = self._salesloft.admit(replace(entry, target=target), request.headers.get("X-Sandbox-Fault"))
        if isinstance(stop, Fault) and stop.name == "reset":
            return send_reset(request)
        if isinstance(stop, Fault) and stop.name == "slow":
            await self._sleep(stop.value)
        if isinstance(stop, Fault) and stop.name in ("status", "html-500"):
            response = fault_response(stop, headers)
        else:
            incoming = IncomingRequest(
                method=request.method,
                target=target,
                content_type=request.headers.get("Content-Type", ""),
                encoding=request.headers.get("Content-Encoding", ""),
                body=body,
            )
            found = stop if isinstance(stop, ApiResponse) else self._salesloft.respond(incoming)
            response = api_response(found, headers)
        log.fill(entry, replace(entry, status=response.status))
        if isinstance(stop, Fault) and stop.name == "reset-mid-body":
            return await send_reset_mid_body(request, response)
        return response

    async def _oauth(self, request: web.BaseRequest, path: str, query: str) -> web.StreamResponse:
        body, _, _ = await read_body(request)
        params = dict(parse_qsl(query, keep_blank_values=True))
        try:
            params |= {
                name: str(value)
                for name, value in body_fields(body, request.headers.get("Content-Type", ""), "").items()
                if value is not None
            }
        except BodyError:
            return json_response(*refusal("invalid_request"))
        match request.method, path:
            case "GET" | "HEAD" | "POST", "/oauth/authorize":
                return self._authorize(params)
            case "POST", "/oauth/token":
                return await self._token(request, params)
            case "POST", "/oauth/revoke":
                self._salesloft.revoke(params.get("token", ""))
                return json_response(200, {})
            case _:
                return json_response(404, {"error": "Not Found"})

    def _authorize(self, params: Mapping[str, str]) -> web.Response:
        match self._salesloft.oauth.authorize(params, self._salesloft.now()):
            case RedirectBack(location):
                return web.Response(status=302, headers={"Location": location, **NO_STORE})
            case AuthorizationError(status, reason):
                return html_response(status, pages.refused(reason))
            case AskConsent(asked):
                return html_response(200, pages.consent(asked))

    async def _token(self, request: web.BaseRequest, params: dict[str, str]) -> web.StreamResponse:
        salesloft, log = self._salesloft, self._salesloft.token_request_log
        entry = log.add(RecordedTokenRequest(grant_type=params.get("grant_type", ""), form=params, at=salesloft.now()))
        header = request.headers.get("X-Sandbox-Fault")
        try:
            fault = salesloft.faults.fault_for(on="token", method="POST", target="/oauth/token", header=header)
        except FaultError as bad:
            response: web.Response | None = json_response(400, {"error": str(bad), "accepted": bad.accepted})
        else:
            response = await self._granted(params, request.headers.get("Authorization", ""), fault)
        if response is None:
            return close_connection(request)
        log.fill(entry, replace(entry, status=response.status))
        return response

    async def _granted(self, params: Mapping[str, str], authorization: str, fault: Fault | None) -> web.Response | None:
        """Return the response to a token request, or None where a fault keeps it from being sent."""
        name, value = (fault.name, fault.value) if fault else ("", 0.0)
        if fault and name == "status":
            return fault_response(fault, {})
        if name == "html-200":
            return html_response(200, pages.BROKEN)
        if name in DESCRIPTIONS:
            return json_response(*refusal(name))
        if name == "down":
            return None
        if name == "slow-before":
            await self._sleep(value)
        granted = self._salesloft.oauth.exchange(params, authorization, self._salesloft.now())
        if name == "slow":
            await self._sleep(value)
        return None if name == "lost" else json_response(*granted)
