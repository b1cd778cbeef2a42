"""The least that a streaming passthrough on aiohttp can be: what slproxy's speed is measured against.

It adds a bearer and streams both ways. No checks, no retries, no renewal, no log.
"""

from __future__ import annotations

import sys

from aiohttp import ClientSession, DummyCookieJar, web

SKIPPED = {"host", "connection", "keep-alive", "transfer-encoding", "te", "upgrade", "authorization"}


async def passthrough(request: web.Request) -> web.StreamResponse:
    headers = [(name, value) for name, value in request.headers.items() if name.lower() not in SKIPPED]
    headers.append(("Authorization", "Bearer bare"))
    body = request.content if request.body_exists else None
    url = request.app["upstream"] + request.raw_path
    async with request.app["session"].request(
        request.method, url, headers=headers, data=body, allow_redirects=False
    ) as reply:
        kept = [(name, value) for name, value in reply.headers.items() if name.lower() not in SKIPPED]
        response = web.StreamResponse(status=reply.status, reason=reply.reason, headers=dict(kept))
        await response.prepare(request)
        async for chunk in reply.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def start(app: web.Application) -> None:
    app["session"] = ClientSession(auto_decompress=False, cookie_jar=DummyCookieJar())


async def stop(app: web.Application) -> None:
    await app["session"].close()


if __name__ == "__main__":
    bare = web.Application()
    bare["upstream"] = sys.argv[1]
    bare.router.add_route("*", "/{tail:.*}", passthrough)
    bare.on_startup.append(start)
    bare.on_cleanup.append(stop)
    loop = None
    if "uvloop" in sys.argv[3:]:
        import uvloop

        loop = uvloop.new_event_loop()
    web.run_app(bare, host="127.0.0.1", port=int(sys.argv[2]), access_log=None, print=lambda _: None, loop=loop)
