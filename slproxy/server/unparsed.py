"""Requests that do not parse: what the client is told for each of the parser's errors."""

from __future__ import annotations

import ast
import re

from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong

from slproxy.errors import BadRequest, MethodRefused, Problem, TooLarge

# What other protocols begin with, what they are, and what to do instead.
_OTHER_PROTOCOLS = (
    (b"\x16\x03", "TLS handshake: use http://", "The proxy speaks plain HTTP on this port."),
    (b"PRI * HTTP/2.0", "HTTP/2 without TLS: use HTTP/1.1", "The proxy speaks HTTP/1.1 alone."),
)
# A method is a token (RFC 9110 §9.1, §5.6.2).
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# How aiohttp quotes what did not parse, as far as it came (_http_parser.pyx, ``parser_error_from_errno``).
_QUOTED = re.compile(r"""\n\n  (b(['"]).*\2)\n""")


def other_protocol(first: bytes) -> BadRequest | None:
    """Return what to answer to a connection that begins as another protocol does, or ``None``."""
    return next(
        (BadRequest(f"{what}.", hint=hint) for start, what, hint in _OTHER_PROTOCOLS if first.startswith(start)), None
    )


def head_too_late(timeout: float) -> BadRequest:
    """Return what to answer to a head that is not whole after so many seconds."""
    return BadRequest(
        f"The request's head did not come within {timeout:g} s (limits.header_timeout).",
        hint="Send it at once.",
        status=408,
    )


def target_too_large() -> TooLarge:
    """Return what to answer to a target over ``limits.max_target``."""
    return TooLarge("The request target is over the limit.", hint="Send less.", status=414)


def headers_too_large() -> TooLarge:
    """Return what to answer to headers, or trailers, over ``limits.max_headers``."""
    return TooLarge("The header block is over the limit.", hint="Send less.", status=431)


def limit_problem(error: BaseException | None, *, max_line_size: int) -> TooLarge | None:
    """Return what to answer where it was a limit that stopped the parser; ``max_line_size`` is that of a target."""
    if isinstance(error, TooLarge):
        return error
    if isinstance(error, LineTooLong) and error.args[1] == max_line_size:
        # Its arguments are the line and the limit that it broke (aiohttp/http_exceptions.py).
        return target_too_large()
    # The limit of their number follows from that of their size; aiohttp has no type for it (_http_parser.pyx).
    many = isinstance(error, HttpProcessingError) and error.message.startswith("Too many headers")
    if many or isinstance(error, LineTooLong):
        return headers_too_large()
    return None


def unparsed_problem(error: BaseException | None, *, max_line_size: int) -> Problem | None:
    """Return what to answer to an error of the parser, or ``None`` where it is none of the parser's."""
    if (over_limit := limit_problem(error, max_line_size=max_line_size)) is not None:
        return over_limit
    if isinstance(error, BadHttpMethod):
        if not _begins_with_method(error):
            return BadRequest(
                "The request line does not begin with a method and a space.",
                hint="Send it with an HTTP client. If this was TLS: the proxy speaks plain HTTP, use http://.",
            )
        return MethodRefused(
            "The method is not one this proxy knows.",
            hint="Use a method of HTTP. If this was TLS: the proxy speaks plain HTTP, use http://.",
            status=501,
        )
    if isinstance(error, HttpProcessingError):
        return BadRequest("The request is not valid HTTP/1.1.", hint="Send it with an HTTP client.")
    return None


def _begins_with_method(error: BadHttpMethod) -> bool:
    """Tell whether the line that did not parse begins with what could be a method, as far as it came."""
    if (quoted := _QUOTED.search(error.message)) is None:
        return True
    line: bytes = ast.literal_eval(quoted[1])
    return _TOKEN.fullmatch(line.partition(b" ")[0]) is not None
