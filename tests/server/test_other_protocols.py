"""Other protocols at the proxy's port: the client and the log are told which it was, and what to use."""

from __future__ import annotations

import logging
import ssl

import pytest

from tests.support.pair import asked, pair, problem
from tests.support.raw_http import Message, get, raw


def client_hello() -> bytes:
    """Return the first bytes of a client that was given https:// for the proxy."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


OTHERS = {
    "https": (client_hello(), "TLS handshake: use http://"),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "HTTP/2"),
}


@pytest.mark.parametrize("other", OTHERS)
async def test_another_protocol_is_told_and_logged(other: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "slproxy")
    first, said = OTHERS[other]
    async with pair() as (upstream, app):
        answer: Message = await raw(app.urls[0], first, method="GET")
        document = problem(answer, status=400, kind="bad-request")
        assert said in str(document["detail"])
        assert said in caplog.text
        assert upstream.seen == []
        assert (await asked(app.urls[0], get("/v2/a"))).head.status == 200
