"""Overrides: what tells an upstream to take a request for another one than its request line says.

Frameworks and gateways honour them (Rack::MethodOverride, ASP.NET's X-Original-URL and X-Rewrite-URL), so a rule about
methods or paths that lets one pass lets anything pass. Without such a rule they go upstream like any header.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from slproxy.errors import MethodRefused, NotFound
from slproxy.http import ByName

_METHOD = re.compile(r"(?:x-)?(?:http-|original-|override-|request-|requested-|rest-)*(?:method|verb)(?:-override)?")
_PATH = re.compile(
    r"(?:x-)?(?:http-|ms-|arr-|waws-|envoy-)?(?:(?:original|rewrite|override|request|destination|unencoded|proxy)-?)*"
    r"(?:url|uri|path)(?:-override)?"
)
# Of a query or a form: Rack's, and so Rails'; others take the header's name. A form comes with a POST, which read-only
# does not let pass, and rules for paths say nothing of methods.
_PARAMETER = re.compile(r"_method|x-http-method(?:-override)?")


def check_overrides(headers: ByName, *, query: str, methods: Sequence[str]) -> None:
    """Check that nothing in a request asks for another method or path.

    Raises:
        Refused: something does; ``methods`` are those that pass.
    """
    # Rack and WSGI read `_` as `-`.
    for name in (raw.decode("latin-1").replace("_", "-") for raw in headers):
        if _METHOD.fullmatch(name):
            raise _method_refused(f"The header {name}", methods)
        if _PATH.fullmatch(name):
            raise NotFound(
                f"The header {name} asks for another path, and this proxy has rules for paths or methods.",
                hint="Leave it out, and ask for that path itself.",
            )
    for parameter in (unquote(each.partition("=")[0]).lower() for each in re.split("[&;]", query)):
        if _PARAMETER.fullmatch(parameter):
            raise _method_refused(f"The parameter {parameter}", methods)


def _method_refused(what: str, methods: Sequence[str]) -> MethodRefused:
    return MethodRefused(
        f"{what} asks for another method, and this proxy has rules for paths or methods.",
        hint="Leave it out, and send that method itself.",
        headers=(("Allow", ", ".join(methods)),),
    )
