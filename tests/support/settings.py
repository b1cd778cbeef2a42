"""Settings loaded from what a test gives, and the message of those that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from slproxy.config import Secret, Settings
from slproxy.config.load import load
from slproxy.errors import ConfigError

# Long, so that no message could hold it by chance.
SECRET = "sEcReT-0123456789-abcdefghij"


def loaded(
    cwd: Path,
    *,
    toml: str | None = None,
    dotenv: str | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    profile: str | None = None,
    config: Path | None = None,
    sandbox: bool = False,
) -> Settings:
    """Load with ``cwd`` as the whole world: its own home, and no other file or variable."""
    if toml is not None:
        (cwd / "slproxy.toml").write_text(toml)
    if dotenv is not None:
        (cwd / ".env").write_text(dotenv)
    home = {"XDG_CONFIG_HOME": str(cwd / "config-home"), "XDG_STATE_HOME": str(cwd / "state-home")}
    environ = home | dict(env or {})
    return load(config=config, profile=profile, flags=flags or {}, environ=environ, cwd=cwd, sandbox=sandbox)


def value(settings: Settings, key: str) -> object:
    section, name = key.split(".")
    found: object = getattr(getattr(settings, section), name)
    return found.reveal() if isinstance(found, Secret) else found


def refusal(
    cwd: Path,
    *,
    toml: str | None = None,
    dotenv: str | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    profile: str | None = None,
    config: Path | None = None,
) -> str:
    """Return the message and the hint that the load ends in; there is always both, and never the secret."""
    with pytest.raises(ConfigError) as caught:
        loaded(cwd, toml=toml, dotenv=dotenv, env=env, flags=flags, profile=profile, config=config)
    error = caught.value
    assert error.exit_code == 2
    message = f"{error.detail} | {error.hint}"
    assert error.hint or "\n" in error.detail
    assert SECRET not in message
    return message
