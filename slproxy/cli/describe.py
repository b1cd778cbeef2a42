"""Facts in words, as more than one command prints them."""

from __future__ import annotations

from collections.abc import Mapping

from slproxy.config import ListenSettings


def describe_token(token: Mapping[str, object]) -> str:
    """Return what a person reads of a token, given what ``status.json`` says of it."""
    if token.get("rejected"):
        return f"{'API key, ' if token['grant'] == 'api_key' else ''}rejected by SalesLoft (401)"
    if token["grant"] == "api_key":
        return "API key, does not expire"
    expires_in, age = token["expires_in"], token["age"]
    if token["generation"] is None:
        return "none yet; fetched on first use"
    known = f"{describe_renewals(token['generation'])}, {describe_span(age)} old"
    if not isinstance(expires_in, float | int):
        return f"does not expire, {known}"
    if expires_in <= 0:
        return f"expired, {known}; renewed on next use"
    return f"valid for {describe_span(expires_in)}, {known}"


def describe_renewals(generation: object) -> str:
    """Return how often a login was renewed: its generation is 1 when it is new."""
    times = generation - 1 if isinstance(generation, int) else 0
    return f"renewed {count(times, 'time')}"


def count(number: int, noun: str) -> str:
    """Return a number and its noun, such as ``1 request`` or ``2 requests``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_span(seconds: object) -> str:
    """Return a span of time, such as ``1 h 59 min``."""
    minutes, rest = divmod(int(seconds) if isinstance(seconds, float | int) else 0, 60)
    parts = ((minutes // 60, "h"), (minutes % 60, "min"), (rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def describe_rules(rules: Mapping[str, object]) -> str:
    """Return what the rules of the policy, or of a client, close, as ``status.json`` tells them, or nothing."""
    accepted, rejected = (_paths(rules.get(name)) for name in ("accept_paths", "reject_paths"))
    parts = ["read only"] if rules.get("read_only") is True else []
    if accepted != "/v2/":
        parts.append(f"only {accepted}")
    if rejected:
        parts.append(f"not {rejected}")
    if isinstance(rules.get("budget"), int):
        spent = f"{rules['spent']} of " if "spent" in rules else ""
        parts.append(f"{spent}{rules['budget']} cost a minute")
    return ", ".join(parts)


def _paths(paths: object) -> str:
    return ", ".join(map(str, paths)) if isinstance(paths, list | tuple) else ""


def describe_other_users(listen: ListenSettings, why_unknown: str | None) -> str:
    """Say that other users of this machine can act with the token, where they can.

    ``why_unknown`` is why the system does not tell users apart, if it does not. A Unix socket has its mode, and tells
    its users everywhere.
    """
    if listen.key is not None:
        return ""
    if listen.allow_other_users:
        return "Every user of this machine can use your SalesLoft token (listen.allow_other_users)."
    if why_unknown is None or listen.uds is not None:
        return ""
    return (
        f"Every user of this machine can use your SalesLoft token: the system does not tell them apart ({why_unknown})."
    )
