"""Changes of settings by a reload: which take effect, which wait for a new start, and what they make anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from slproxy.config import SCHEMA, AuthSettings, Settings

# What is made once, at the start.
AT_START = frozenset(
    {
        *("listen.host", "listen.port", "listen.uds", "listen.uds_mode"),
        *("log.level", "log.format", "log.audit", "log.audit_required", "metrics.host", "metrics.port"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The difference between the settings in force and those that a reload asked for."""

    # Those to put in force: as asked for, but for what is made once.
    settings: Settings = field(repr=False)
    # The keys that change, and those that only a new start puts in force.
    changed: list[str]
    later: list[str]
    # Which parts have to be made anew.
    store: bool
    upstream: bool
    credentials: bool
    # Whether the same team's rate limit is spent as before, as far as settings tell.
    is_same_team: bool


def changes(before: Settings, asked: Settings, *, has_old_ca: bool = False) -> Changes:
    """Return what a reload changes; ``has_old_ca``: ``upstream.ca_file`` holds something else than when it was read."""
    settings = _with_keys(asked, before, AT_START)
    store, upstream = before.store != settings.store, has_old_ca or before.upstream != settings.upstream
    changed = _differing(before, settings)
    if has_old_ca and "upstream.ca_file" not in changed:
        changed.append("upstream.ca_file")
    return Changes(
        settings=settings,
        changed=changed,
        later=_differing(asked, settings),
        store=store,
        upstream=upstream,
        credentials=store or upstream or before.auth != settings.auth,
        is_same_team=_identity(before.auth) == _identity(settings.auth),
    )


def _identity(auth: AuthSettings) -> tuple[object, ...]:
    """Return what tells one team's credentials from another's."""
    return (auth.grant, auth.client_id, auth.api_key)


def _with_keys(settings: Settings, other: Settings, keys: Iterable[str]) -> Settings:
    """Return settings in which some keys are as in ``other``."""
    for key in keys:
        section, name = key.split(".")
        part = replace(getattr(settings, section), **{name: other.value(SCHEMA[key])})
        settings = replace(settings, **{section: part})
    return settings


def _differing(one: Settings, other: Settings) -> list[str]:
    """Return the keys that two settings do not share, or of which they have different values."""
    schema = {**one.schema, **other.schema}
    return [
        key
        for key, setting in schema.items()
        if key not in one.schema or key not in other.schema or one.value(setting) != other.value(setting)
    ]
