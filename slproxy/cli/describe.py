"""Facts in words, as more than one command prints them."""

from __future__ import annotations

from collections.abc import Mapping


def describe_token(token: Mapping[str, object]) -> str:
    """Return what a person reads of a token, given what ``status.json`` says of it."""
    if token["grant"] == "api_key":
        return "an API key; it does not expire"
    expires_in, age = token["expires_in"], token["age"]
    if token["generation"] is None:
        return "none yet; it is asked for when it is wanted"
    known = f"generation {token['generation']}, {describe_span(age)} old"
    if not isinstance(expires_in, float | int):
        return f"does not expire, {known}"
    if expires_in <= 0:
        return f"expired, {known}; it is renewed when it is wanted"
    return f"valid for {describe_span(expires_in)}, {known}"


def describe_span(seconds: object) -> str:
    """Return a span of time, such as ``1 h 59 min``."""
    minutes, rest = divmod(int(seconds) if isinstance(seconds, float | int) else 0, 60)
    parts = ((minutes // 60, "h"), (minutes % 60, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"
