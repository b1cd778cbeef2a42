"""HAR: entries as an HTTP Archive 1.2, which browsers, Postman and others read (http://www.softwareishard.com/blog/har-12-spec).

It holds no credential, as all that the inspector shows. On request the values of fields that are named like what people
have are masked as well: of JSON, of forms, of queries. What stands in a text of another kind is not found.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import cast
from urllib.parse import parse_qsl, unquote

import slproxy
from slproxy.observe import MASK

# SalesLoft's names for fields that identify a person (docs/salesloft.md), and their like.
_PERSONAL = re.compile(
    r"(?is)(.*[_\[.-])?((first|last|full|display|nick|middle|user|sur)?_?name|e?mails?|e?mail_?addresses|(e?mail|street|home|work)_?address|address|"
    r"(home|work|mobile|direct)?_?(phones?|phone_?numbers?|phone_?extension)|mobile|fax|city|state|street|zip|postal_?code|country|locale|"
    r"birth_?(day|date)|linkedin(_url)?|twitter(_handle)?|signature|title|person(al)?_.*|to|cc|bcc|from|recipients?)([\]\[\]]*)"
)
# Of a JSON document that was cut, so that it does not parse: a string, with its value if it is a member's name. And a
# field of a form. Each matches wherever it is tried, so that nothing is looked at twice.
_MEMBER = re.compile(r'"((?:[^"\\]|\\.)*+)(?:"(?:(\s*+:\s*+)(?:"(?:[^"\\]|\\.)*+"?|[^\s,}\]]++))?)?')
_FIELD = re.compile(r"([^=&;?]++)(?:=[^&;#]*)?")

Document = Mapping[str, object]


class Archive:
    """An archive as the body of an answer: entries are worded one by one, so that requests get their turn."""

    ended = False

    def __init__(self, entries: Iterator[str], veil: Callable[[str], str]) -> None:
        """``veil`` masks what is secret in an entry."""
        self._entries, self._veil = entries, veil

    def read_nowait(self) -> bytes:
        """Return what comes before the entries."""
        creator = json.dumps({"name": "slproxy", "version": slproxy.__version__})
        return f'{{"log": {{"version": "1.2", "creator": {creator}, "entries": ['.encode()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the entries, and what comes behind."""
        separator = ""
        for entry in self._entries:
            yield f"{separator}{self._veil(entry)}".encode()
            separator = ",\n"
            await asyncio.sleep(0)
        yield b"]}}\n"

    def close(self) -> None:
        """Nothing is held open."""


def archived(details: Document, origin: str, *, mask: bool) -> dict[str, object]:
    """Return the entry of an exchange, of which these are the details; ``origin`` is the proxy's own."""
    row, request, response = (cast("Document", details[each]) for each in ("row", "request", "response"))
    target = str(details["target"])
    if mask:
        path, separator, query = target.partition("?")
        target = path + separator + masked_form(query)
    body, content = (_body(cast("Document", each["body"]), mask=mask) for each in (request, response))
    came = cast("Document", request["body"])
    asked: dict[str, object] = {
        "method": row["method"],
        "url": origin + target,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _headers(request["headers"]),
        "queryString": [
            {"name": name, "value": value}
            for name, value in parse_qsl(target.partition("?")[2], keep_blank_values=True)
        ],
        "headersSize": -1,
        "bodySize": came["size"],
    }
    if came["kind"] != "none":
        asked["postData"] = {"mimeType": came["type"], **body}
    received = cast("Document", response["body"])
    times = {each: cast("float", row[f"{each}_ms"]) for each in ("wait", "token", "proxy", "upstream", "stream")}
    return {
        "startedDateTime": datetime.fromtimestamp(cast("float", row["at"]), UTC).isoformat(timespec="milliseconds"),
        "time": row["ms"],
        "request": asked,
        "response": {
            "status": row["status"],
            "statusText": response["reason"] or "",
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": _headers(response["sent_headers"]),
            "content": {"size": received["size"], "mimeType": received["type"], **content},
            "redirectURL": "",
            "headersSize": -1,
            "bodySize": row["out"],
        },
        "cache": {},
        "timings": {
            "blocked": round(times["wait"] + times["token"] + times["proxy"], 1),
            "send": 0,
            "wait": times["upstream"],
            "receive": times["stream"],
        },
        "_n": row["n"],
        "_id": row["id"],
        "_client": row["client"],
        "_attempts": details["attempts"],
    }


def _headers(headers: object) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in cast("list[tuple[str, str]]", headers)]


def _body(body: Document, *, mask: bool) -> dict[str, object]:
    if body["kind"] == "text":
        text = str(body["text"])
        note = {"comment": f"{body['kept']} of {body['size']} bytes kept"} if body["cut"] else {}
        return {"text": masked_text(text, str(body["type"])) if mask else text, **note}
    if body["kind"] == "binary" and not mask:
        return {"text": body["base64"], "encoding": "base64"}
    return {"comment": "not recorded"} if body["kind"] == "unrecorded" else {}


def masked_text(text: str, kind: str) -> str:
    """Return a text of this type with the values of personal fields masked."""
    if "urlencoded" in kind:
        return masked_form(text)
    if "json" not in kind and not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.dumps(_masked(json.loads(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return _MEMBER.sub(_without_value, text)


def _without_value(member: re.Match[str]) -> str:
    is_personal = member[2] and _PERSONAL.fullmatch(member[1])
    return f'"{member[1]}"{member[2]}"{MASK}"' if is_personal else member[0]


def masked_form(text: str) -> str:
    """Return a form or query with the values of personal fields masked."""
    return _FIELD.sub(_without_field, text)


def _without_field(field: re.Match[str]) -> str:
    has_value = len(field[0]) > len(field[1])
    return f"{field[1]}={MASK}" if has_value and _PERSONAL.fullmatch(unquote(field[1])) else field[0]


def _masked(value: object, *, is_personal: bool = False) -> object:
    if isinstance(value, dict):
        return {key: _masked(each, is_personal=is_personal or _is_personal(key, each)) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked(each, is_personal=is_personal) for each in value]
    return MASK if is_personal and value is not None and not isinstance(value, bool) else value


def _is_personal(key: object, value: object) -> bool:
    """Tell by its name whether a field is somebody's; what holds further fields is asked about those."""
    return not isinstance(value, dict) and _PERSONAL.fullmatch(str(key)) is not None
