"""Forms posted to the accounts host, such as a token request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from slproxy.auth import Form, TokenEndpointReply
from slproxy.http import encoded
from slproxy.upstream.faults import fault_of
from slproxy.upstream.outbound import Outbound
from slproxy.upstream.reply import Reply

# A reply of the accounts host, in bytes and in seconds from the first to its last byte, the connecting included.
MAX_ACCOUNTS_REPLY = 64 * 1024
ACCOUNTS_TIMEOUT = 10.0


async def post_form(form: Form, send: Callable[[Outbound], Awaitable[Reply]], *, within: float) -> TokenEndpointReply:
    """Post a form by ``send`` and return the whole reply; one that is too long is cut off, and so reads as none.

    Raises:
        UpstreamFault: there was no reply, or none ``within`` so many seconds.
    """
    body = form.encode()
    headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Accept", "application/json"),
        ("Content-Length", str(len(body))),
    ]
    content = b""
    try:
        async with asyncio.timeout(within):
            reply = await send(Outbound(method="POST", target=form.path, headers=encoded(headers), body=body))
            try:
                async for chunk in reply.chunks():
                    content += chunk
                    if len(content) > MAX_ACCOUNTS_REPLY:
                        break
            finally:
                reply.close()
    except TimeoutError as error:
        raise fault_of(error, timeout=within) from error
    return TokenEndpointReply(status=reply.status, headers=headers_by_name(reply), body=content)


def headers_by_name(reply: Reply) -> dict[str, str]:
    """Return the headers of a reply by their names in lower case; of repeated ones the last counts."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in reply.headers}
