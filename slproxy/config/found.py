"""Found files: what ``./slproxy.toml`` and ``./.env`` may not do, since nobody has named them.

A folder brings its own: a cloned repository, an archive. Such a file may set what it likes for this folder's work, but
not decide where credentials go that were given elsewhere, nor write outside of that folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slproxy.config.files import is_below
from slproxy.config.messages import redacted
from slproxy.config.origin import Origin
from slproxy.config.schema import SCHEMA, Settings
from slproxy.errors import ConfigError

# Where credentials go, and whom to believe there: all of the upstream's settings but numbers and choices.
REDIRECTS = tuple(
    setting
    for setting in SCHEMA.values()
    if (
        setting.section == "upstream"
        and setting.kind not in ("integer", "number", "size", "switch")
        and not setting.choices
    )
    or setting.key == "store.redis_url"
)
# The local key is for clients, and never leaves this machine.
CREDENTIALS = (
    *(key for key, setting in SCHEMA.items() if setting.secret and setting.section != "listen"),
    "auth.client_id",
)
# What is no secret is one after all when it is read from a file: `auth.scope_file` might name any.
_READ_AND_SENT = tuple(key for key, setting in SCHEMA.items() if setting.credential and key not in CREDENTIALS)


def conflicts(settings: Settings) -> Iterator[ConfigError]:
    """Yield each setting of a found file that would send credentials from elsewhere to where that file says."""
    for key, origin in _redirects(settings):
        for credential in (*CREDENTIALS, *_READ_AND_SENT):
            given = settings.origin(credential)
            # A file that the found file names is another one.
            from_elsewhere = given.path or (given.found != origin.found and credential in CREDENTIALS)
            if credential != key and from_elsewhere and _value(settings, credential) is not None:
                yield _refusal(settings, key, origin, f"{credential} ({given})")
                break


def conflicts_of_paths(settings: Settings) -> Iterator[ConfigError]:
    """Yield each setting of a found file that would have a file written that is none of its own folder's.

    What is no token where one should be is moved aside, and so would be any file of this user's.
    """
    paths = {"log.audit": settings.log.audit, "store.path": settings.store.path}
    if settings.store.kind != "file":
        del paths["store.path"]
    for key, path in paths.items():
        origin = settings.origin(key)
        if path is not None and origin.found and not is_below(path, Path(origin.found).parent):
            yield ConfigError(
                f"{key} ({origin}) names {path}, and comes from a file that nobody named: such a file does not decide"
                " what is written outside of its folder",
                hint=f"to say yes: {SCHEMA[key].variables[-1]} in the environment; else name a file of that folder, or"
                " remove the line",
            )


def has_redirects(settings: Settings) -> bool:
    """Tell whether a found file says where credentials go."""
    return bool(_redirects(settings))


def check_login(settings: Settings, *, api_url: str | None, accounts_url: str | None) -> None:
    """Raise ConfigError when a found file would take a login elsewhere than to the addresses it was made at.

    Of a login that is yet to be made they are None: it will belong to the settings' own. Nothing ties a login to the
    rest, such as ``upstream.ca_file``, so that never goes with one.
    """
    made_at = {"upstream.api_url": api_url, "upstream.accounts_url": accounts_url}
    for key, origin in _redirects(settings):
        if key not in made_at or made_at[key] not in (None, _value(settings, key)):
            raise _refusal(settings, key, origin, "a stored login")


def _redirects(settings: Settings) -> list[tuple[str, Origin]]:
    """Return what found files say of where credentials go, other than the default."""
    given = [(setting, settings.origin(setting.key)) for setting in REDIRECTS]
    return [
        (setting.key, origin)
        for setting, origin in given
        if origin.found and _value(settings, setting.key) != setting.default
    ]


def _refusal(settings: Settings, key: str, origin: Origin, credential: str) -> ConfigError:
    value = "" if SCHEMA[key].secret else f" {redacted(str(_value(settings, key)), text=True)}"
    # No flag and no variable names .env.
    named = "" if origin.layer == "dotenv" else f"--config {origin.found}, SLPROXY_CONFIG={origin.found}, or "
    return ConfigError(
        f"{key} ({origin}){value} comes from a file that nobody named, and {credential} from elsewhere: such a file"
        " does not decide where credentials go",
        hint=f"to say yes: {named}{SCHEMA[key].variables[-1]} in the environment; else remove the line",
    )


def _value(settings: Settings, key: str) -> object:
    return settings.value(SCHEMA[key])
