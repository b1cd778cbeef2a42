"""Overrides: what tells an upstream to take a request for another one than its request line says.

Frameworks and gateways honour them (Rack::MethodOverride, ASP.NET's X-Original-URL and X-Rewrite-URL), so a rule about
methods or paths that lets one pass lets anything pass. Without such a rule they go upstream like any header.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

from slproxy.http import ByName

_METHOD = re.compile(r"(?:x-)?(?:http-|original-|override-|request-|requested-|rest-)*(?:method|verb)(?:-override)?")
_PATH = re.compile(
    r"(?:x-)?(?:http-|ms-|arr-|waws-|envoy-)?(?:(?:original|rewrite|override|request|destination|unencoded|proxy)-?)*"
    r"(?:url|uri|path)(?:-override)?"
)
# Of a query or a form: Rack's, and so Rails'; others take the header's name. A form comes with a POST, which read-only
# does not let pass, and rules for paths say nothing of methods.
_PARAMETER = re.compile(r"_method|x-http-method(?:-override)?")


def override_in(headers: ByName, *, query: str) -> tuple[str, Literal["method", "path"]] | None:
    """Return what in a request asks for another method or path, such as ``The header x-method``, and for which."""
    # Rack and WSGI read `_` as `-`.
    for name in (raw.decode("latin-1").replace("_", "-") for raw in headers):
        if _METHOD.fullmatch(name):
            return f"The header {name}", "method"
        if _PATH.fullmatch(name):
            return f"The header {name}", "path"
    for parameter in (unquote(each.partition("=")[0]).lower() for each in re.split("[&;]", query)):
        if _PARAMETER.fullmatch(parameter):
            return f"The parameter {parameter}", "method"
    return None
