"""Read the settings: flag > environment > ``.env`` > TOML file > default.

1. Nothing is guessed: a name that is not a setting, a value of another type or two settings that clash stop the start.
2. A message names the key, the place, what was expected and what to do; it never shows a secret.
3. All errors of one start are told at once.
4. Everything read is passed in, but for the files that a setting names and the home folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from platformdirs import user_config_path, user_state_path

from slproxy.config.conflicts import check, raise_errors
from slproxy.config.messages import redacted
from slproxy.config.parse import parse
from slproxy.config.schema import (
    KIB,
    SCHEMA,
    SECTIONS,
    Origin,
    Settings,
)
from slproxy.config.secret import Secret
from slproxy.config.sources import (
    PROFILE,
    PROFILE_NAME,
    RawValue,
    Variable,
    from_dotenv,
    from_environ,
    from_flags,
    from_variables,
    read,
)
from slproxy.config.toml import from_toml, profiles_in
from slproxy.errors import ConfigError

# Far above any key or token; a larger file is not a secret but a mistake, such as a log or a disk image.
SECRET_FILE_MAX = 64 * KIB


def load(
    *,
    config: Path | None,
    profile: str | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: Path,
) -> Settings:
    """Return the settings in force; ``flags`` are keyed like ``listen.port``, and None among them is not given.

    Raises ConfigError, with every mistake found, one a line.
    """
    variables = from_environ(environ)
    dotenv = list(from_dotenv(cwd))
    errors: list[ConfigError] = []
    chosen = _chosen(profile, _first("SLPROXY_PROFILE", variables, dotenv))
    layers = [
        *from_toml(*_file(config, _first("SLPROXY_CONFIG", variables, dotenv), environ, cwd), chosen, cwd, errors),
        from_variables(dotenv, cwd, errors),
        from_variables(variables, cwd, errors),
        from_flags(flags, cwd),
    ]
    # Only what is in force is read on: a mounted file that a higher layer made irrelevant need not exist here.
    given = {each.setting.key: each for layer in layers for each in layer}
    values: dict[str, object] = {key: setting.default for key, setting in SCHEMA.items()}
    origins = {key: Origin(layer="default") for key in SCHEMA}
    for key, each in given.items():
        try:
            values[key], origins[key] = _parsed(each)
        except ConfigError as error:
            errors.append(error)
    raise_errors(errors)
    if values["store.path"] is None:
        values["store.path"] = _folder(environ, "XDG_STATE_HOME", user_state_path) / f"{chosen}.json"
    settings = _built(values, chosen, origins)
    check(settings)
    return settings


def profiles(*, config: Path | None, environ: Mapping[str, str], cwd: Path) -> list[str]:
    """Return the names of the profiles that have a table in the file or a token in the state folder."""
    variable = _first("SLPROXY_CONFIG", from_environ(environ), from_dotenv(cwd))
    path, content = _file(config, variable, environ, cwd)
    kept = {each.stem for each in _folder(environ, "XDG_STATE_HOME", user_state_path).glob("*.json")}
    return sorted(name for name in {"default", *kept, *profiles_in(path, content, cwd)} if PROFILE.fullmatch(name))


def _built(values: Mapping[str, object], profile: str, origins: Mapping[str, Origin]) -> Settings:
    sections: dict[str, dict[str, object]] = {name: {} for name in SECTIONS}
    for key, setting in SCHEMA.items():
        sections[setting.section][setting.name] = values[key]
    make: Callable[..., Settings] = Settings
    return make(
        profile=profile,
        origins=MappingProxyType(dict(origins)),
        **{name: shape(**sections[name]) for name, shape in SECTIONS.items()},
    )


# Where values are found.


def _first(name: str, *layers: Iterable[Variable]) -> Variable | None:
    return next((each for layer in layers for each in layer if each.name == name and each.value.strip()), None)


def _chosen(flag: str | None, variable: Variable | None) -> str:
    name, place = flag, "flag --profile"
    if name is None:
        name, place = (variable.value.strip(), str(variable.origin)) if variable else ("default", "default")
    if not PROFILE.fullmatch(name):
        raise ConfigError(
            f"profile ({place}): expected {PROFILE_NAME}, got {redacted(name, text=True)}",
            hint="the name becomes part of a file name: choose another",
        )
    return name


def _folder(environ: Mapping[str, str], variable: str, fallback: Callable[[str], Path]) -> Path:
    """Return the user's folder for slproxy; the XDG specification has relative paths ignored."""
    named = Path(environ.get(variable, ""))
    return named / "slproxy" if named.is_absolute() else fallback("slproxy")


def _file(
    flag: Path | None, variable: Variable | None, environ: Mapping[str, str], cwd: Path
) -> tuple[Path, bytes | None]:
    """Return the TOML file in force and what is in it, None if there is none."""
    if flag is not None or variable is not None:
        place = "flag --config" if flag is not None else str(variable.origin if variable else "")
        path = cwd / (flag or Path(variable.value.strip() if variable else "")).expanduser()
        content = read(path, f"the configuration file ({place})")
        if content is None:
            raise ConfigError(
                f"the configuration file ({place}) does not exist: {path}", hint="correct the path, or leave it out"
            )
        return path, content
    user = _folder(environ, "XDG_CONFIG_HOME", user_config_path) / "config.toml"
    for path in (cwd / "slproxy.toml", user):
        content = read(path, "the configuration file")
        if content is not None:
            return path, content
    return user, None


# What is made of them.


def _parsed(given: RawValue) -> tuple[object, Origin]:
    value, origin = _mounted(given) if given.from_file else (given.value, given.origin)
    try:
        text = given.text or given.from_file
        return parse(given.setting, value, text=text, base=given.base), origin
    except ConfigError as refused:
        raise ConfigError(f"{given.setting.key} ({origin}): {refused.detail}", hint=refused.hint) from refused


def _mounted(given: RawValue) -> tuple[str, Origin]:
    """Return what the file of a mounted secret holds, and where that is."""
    key = given.setting.key
    if not isinstance(given.value, str) or not given.value:
        raise ConfigError(f"{key}_file ({given.origin}): expected the path of a file", hint="or give the value itself")
    try:
        path = given.base / Path(given.value).expanduser()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{key}_file ({given.origin}): is no path", hint="give the path of a file") from error
    origin = replace(given.origin, path=str(path))
    return _content(path, f"{key} ({origin})"), origin


def secret_in(path: Path) -> Secret:
    """Return the key that a file holds, as ``store.key_file`` has it. Raises ConfigError."""
    setting = SCHEMA["store.key"]
    try:
        secret = parse(setting, _content(path, str(path)), text=True, base=path.parent)
    except ConfigError as refused:
        raise ConfigError(f"{path}: {refused.detail}", hint=refused.hint) from refused
    assert isinstance(secret, Secret), "that setting is one"
    return secret


def _content(path: Path, name: str) -> str:
    """Return what a file holds, less the line end that editors and ``echo`` put there."""
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_FILE_MAX + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{name}: the file does not exist", hint="correct the path, or mount it") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{name}: the file cannot be read", hint="it must be a file that this user may read"
        ) from error
    if len(content) > SECRET_FILE_MAX:
        raise ConfigError(f"{name}: the file is over 64 KiB", hint="name a file that holds the value alone")
    value = content.decode(errors="replace").rstrip("\r\n")
    if not value:
        raise ConfigError(f"{name}: the file is empty", hint="write the value into it")
    return value
