"""Resend: a recorded request, as it came or edited, made one that the proxy checks and sends like any other.

The credentials of a request are not recorded. It is sent again with those of whoever asks for it: what that one may not
send, is not sent.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

from slproxy.errors import BadRequest, NotRecorded
from slproxy.forward import Inbound
from slproxy.http import RawHeaders
from slproxy.inspect.ring import Entry, Note
from slproxy.observe import MASK, KeptBody, is_credential

_METHOD = re.compile(r"[A-Z]{1,20}")
_TARGET = re.compile(r"/[!-~]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
# What is made anew, or belongs to the connection or the browser that the first came by.
_LEFT_OUT = re.compile(
    r"content-length|transfer-encoding|connection|keep-alive|te|trailer|upgrade|expect|via|origin|referer|sec-fetch-.*"
)

Edit = Mapping[str, object]


def repeated(entry: Entry, asker: Inbound, edit: Edit | None) -> Inbound:
    """Return a request as it is sent again for ``asker``, who may have edited it.

    Raises:
        NotRecorded: something of it was not kept.
        BadRequest: an edit is no request.
    """
    exchange, recording = entry
    if isinstance(exchange, Note) or not recording.target:
        raise NotRecorded("That is no request that came whole.", hint="Choose another one.")
    headers = recording.came
    if edit is None:
        method, target, body = exchange.method, recording.target, _whole_body(entry)
        if MASK in target:
            raise NotRecorded("A parameter of its query held a credential, which is not kept.", hint="Edit it instead.")
    else:
        method, target, headers, body = _edited(edit)
    kept = [(name, value) for name, value in headers if not (_is_left_out(name) or is_credential(name))]
    if edit is not None:  # the page shows bodies as they read
        kept = [(name, value) for name, value in kept if name.lower() != b"content-encoding"]
    if not any(name.lower() == b"host" for name, _ in kept):
        kept += [(name, value) for name, value in asker.headers if name.lower() == b"host"]
    kept += [(name, value) for name, value in asker.headers if name.lower() in (b"authorization", b"x-slproxy-key")]
    has_body = bool(body) or method in ("POST", "PUT", "PATCH")
    if has_body:
        kept.append((b"Content-Length", str(len(body)).encode()))
    return Inbound(
        method=method,
        target=target,
        headers=kept,
        has_body=bool(body),
        length=len(body) if has_body else None,
        read=_read_once(body) if body else None,
        other_user=asker.other_user,
    )


def _is_left_out(name: bytes) -> bool:
    return _LEFT_OUT.fullmatch(name.decode("latin-1").lower()) is not None


def _whole_body(entry: Entry) -> bytes:
    exchange, recording = entry
    body: KeptBody | None = recording.request_body
    assert not isinstance(exchange, Note), "a request"
    if body is None:
        if exchange.bytes_received or exchange.method in ("POST", "PUT", "PATCH"):
            raise NotRecorded("Its body was not recorded.", hint="Record bodies for a while, and let it come again.")
        return b""
    if len(body.data) < body.size:
        raise NotRecorded(
            f"Of its body, {len(body.data)} of {body.size} bytes were kept.", hint="Edit it, with a body of your own."
        )
    return bytes(body.data)


def _edited(edit: Edit) -> tuple[str, str, RawHeaders, bytes]:
    method, target, given, body = (edit.get(each) for each in ("method", "target", "headers", "body"))
    if not (isinstance(method, str) and _METHOD.fullmatch(method)):
        raise _bad("method")
    if not (isinstance(target, str) and _TARGET.fullmatch(target)):
        raise _bad("target: it begins with a slash, and what is not ASCII or a space is percent-encoded")
    if not (isinstance(given, list) and all(isinstance(each, list) and len(each) == 2 for each in given)):
        raise _bad("headers")
    if not isinstance(body, str | None):
        raise _bad("body")
    headers: list[tuple[bytes, bytes]] = []
    try:
        for name, value in given:
            if not (isinstance(name, str) and isinstance(value, str) and _NAME.fullmatch(name)):
                raise _bad("headers")
            if _VALUE.fullmatch(value) is None:
                raise _bad("headers")
            if MASK not in value:
                headers.append((name.encode(), value.strip(" \t").encode()))
        return method, target, headers, (body or "").encode()
    except UnicodeEncodeError:
        raise _bad("headers or body: half a character") from None


def _bad(what: str) -> BadRequest:
    return BadRequest(f"The edited request is none: see its {what}.", hint="Correct it, and send it again.")


def _read_once(body: bytes) -> Callable[[], Awaitable[bytes]]:
    left = [body]

    async def read() -> bytes:
        return left.pop() if left else b""

    return read
