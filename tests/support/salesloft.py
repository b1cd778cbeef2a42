"""The sandbox's API without a socket: requests that have passed authentication and budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from slproxy.sandbox.api.routing import IncomingRequest
from slproxy.sandbox.salesloft import SalesLoft


@dataclass
class ApiClient:
    """Call the API of a SalesLoft in this process."""

    salesloft: SalesLoft

    def ask(
        self,
        method: str,
        target: str,
        *,
        document: object = None,
        form: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "",
        encoding: str = "",
    ) -> tuple[int, dict[str, object]]:
        """Return the status and the JSON body, empty where there is none; send a document, a form or bytes."""
        if document is not None:
            body, content_type = json.dumps(document).encode(), "application/json"
        elif form is not None:
            body, content_type = urlencode(form).encode(), "application/x-www-form-urlencoded"
        response = self.salesloft.respond(
            IncomingRequest(method=method, target=target, content_type=content_type, encoding=encoding, body=body)
        )
        # As a client reads it.
        return response.status, json.loads(json.dumps(response.body or {}))

    def rows(self, target: str) -> list[dict[str, object]]:
        """Return a list's data."""
        status, body = self.ask("GET", target)
        assert status == 200, body
        data = body["data"]
        assert isinstance(data, list)
        return data

    def row(
        self,
        method: str,
        target: str,
        *,
        document: object = None,
        form: Mapping[str, str] | None = None,
    ) -> dict[str, object]:
        """Return one record."""
        status, body = self.ask(method, target, document=document, form=form)
        assert status in (200, 201), body
        data = body["data"]
        assert isinstance(data, dict)
        return data
