"""Loading the settings: flag > environment > ``.env`` > TOML file > default.

1. Nothing is guessed: an unknown name, a value of another type or two settings in conflict stop the start.
2. A message names the key, the place, what was expected and what to do; it never shows a secret.
3. All errors of one start are reported at once.
4. Everything read is passed in, but for the files that a setting names and the home folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from slproxy.config.api_key import check_no_api_key, is_api_key
from slproxy.config.conflicts import check, raise_errors
from slproxy.config.egress import Egress, from_environment
from slproxy.config.env_file import from_dotenv
from slproxy.config.files import (
    NOWHERE,
    check_no_folder,
    check_readable,
    config_folder,
    expanded,
    is_secret_itself,
    logins_in,
    read,
    read_found,
    read_secret,
    state_folder,
    token_file,
)
from slproxy.config.flags import from_flags
from slproxy.config.found import REDIRECTS
from slproxy.config.messages import redacted
from slproxy.config.origin import DEFAULT, Origin
from slproxy.config.parse import parse
from slproxy.config.raw_value import RawValue
from slproxy.config.schema import (
    PROFILE,
    PROFILE_NAME,
    SCHEMA,
    SECTIONS,
    ClientSettings,
    Settings,
    client_schema,
    schema_with,
)
from slproxy.config.secret import Secret
from slproxy.config.setting import Setting
from slproxy.config.toml import from_toml, profiles_in
from slproxy.config.variables import Variable, from_environ, from_variables, lookalikes
from slproxy.errors import ConfigError

_NAME_IT = "name it (--config or SLPROXY_CONFIG)"


def load(
    *,
    config: Path | None,
    profile: str | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: Path,
    sandbox: bool = False,
) -> Settings:
    """Return the effective settings; ``flags`` are keyed like ``listen.port``, and None among them is not set.

    With ``sandbox``, credentials, the store and the upstream's addresses are left out: right or wrong, none is used.

    Raises ConfigError, with every error found, one a line.
    """
    variables = from_environ(environ)
    dotenv = list(from_dotenv(cwd, environ))
    errors: list[ConfigError] = []
    chosen = _profile(profile, _first("SLPROXY_PROFILE", variables, dotenv))
    path, content, found = _toml_file(config, _first("SLPROXY_CONFIG", variables, dotenv), environ, cwd)
    in_file = from_toml(path, content, chosen, cwd, errors, found=found)
    clients = {raw.setting.table for layer in in_file for raw in layer if raw.setting.table}
    layers = [
        *in_file,
        from_variables(dotenv, cwd, errors, clients=clients),
        from_variables(variables, cwd, errors, clients=clients),
        from_flags(flags, cwd),
    ]
    # Only the winning values are parsed: a mounted file that a higher layer overrides need not exist here.
    given = {raw.setting.key: raw for layer in layers for raw in layer if not (sandbox and _is_real(raw.setting))}
    named = sorted({raw.setting.table for raw in given.values() if raw.setting.table})
    schema = schema_with(named)
    values: dict[str, object] = {key: setting.default for key, setting in schema.items()}
    origins = dict.fromkeys(schema, DEFAULT)
    for key, raw in given.items():
        try:
            values[key], origins[key] = _parsed(raw)
        except ConfigError as error:
            errors.append(error)
    errors += _given_by_run(given, environ)
    errors += [_without_key(name, given) for name in named if f"client.{name}.key" not in given]
    raise_errors(errors)
    if not sandbox:
        _add_environment(values, origins, environ)
    if values["store.path"] is None:
        values["store.path"] = token_file(environ, chosen, is_needed=not sandbox and _needs_login(values))
    settings = _build(values, chosen, origins, clients=named)
    near = list(lookalikes([*variables, *dotenv], given))
    try:
        check(settings)
    except ConfigError as error:
        if near:
            error.hint = "; ".join([error.hint, *near] if error.hint else near)
        raise
    return replace(settings, warnings=(*near, *_doubts(settings)))


def _given_by_run(given: Mapping[str, RawValue], environ: Mapping[str, str]) -> Iterator[ConfigError]:
    """Yield an error where the API key is what `slproxy run` gave a program: SalesLoft must not see that."""
    raw = given.get("auth.api_key")
    if raw is not None and raw.value and raw.value == environ.get("SLPROXY_KEY"):
        yield ConfigError(
            f"auth.api_key ({raw.origin}) is SLPROXY_KEY, the key of the proxy of the `slproxy run` that this runs in",
            hint="send requests to SLPROXY_URL: that proxy has SalesLoft's credentials, and needs no other",
        )


def _without_key(name: str, given: Mapping[str, RawValue]) -> ConfigError:
    place = next(raw.origin for raw in given.values() if raw.setting.table == name)
    return ConfigError(
        f"client.{name} ({place}) has no key, by which it would be known",
        hint="set its key, or key_file; slproxy key prints one",
    )


def _add_environment(values: dict[str, object], origins: dict[str, Origin], environ: Mapping[str, str]) -> None:
    """Let the environment name the egress proxy, where ``upstream.proxy`` leaves that to it."""
    egress = values["upstream.proxy"]
    assert isinstance(egress, Egress), "its validator made it"
    if egress.mode == "env":
        hosts = [urlsplit(str(values[key])).hostname or "" for key in ("upstream.api_url", "upstream.accounts_url")]
        values["upstream.proxy"] = egress = from_environment(environ, hosts)
        if egress.proxy is not None:
            origins["upstream.proxy"] = Origin(layer="env", place=egress.named_in)


def _needs_login(values: Mapping[str, object]) -> bool:
    """Tell whether a login may be stored in a place that depends on the user."""
    grant, has_key = values["auth.grant"], values["auth.api_key"] is not None
    needs_none = grant in ("api_key", "client_credentials") or (grant == "auto" and has_key)
    return not needs_none and values["store.kind"] in ("file", "keyring")


def _is_real(setting: Setting) -> bool:
    return setting.credential or setting.section == "store" or setting in REDIRECTS


def _doubts(settings: Settings) -> Iterator[str]:
    key = settings.auth.api_key
    if key is not None and not is_api_key(key.reveal()):
        yield (
            f"auth.api_key ({settings.origin('auth.api_key')}) looks like none of SalesLoft's, which are ak_ or"
            " v2_ak_TEAM_ and 64 hexadecimal digits: was all of it copied?"
        )


def profiles(*, config: Path | None, environ: Mapping[str, str], cwd: Path) -> list[str]:
    """Return the names of the profiles that have a table in the file or a token in the state folder."""
    variable = _first("SLPROXY_CONFIG", from_environ(environ), from_dotenv(cwd, environ))
    path, content, _ = _toml_file(config, variable, environ, cwd)
    stored = set(logins_in(state_folder(environ)))
    return sorted(name for name in {"default", *stored, *profiles_in(path, content, cwd)} if PROFILE.fullmatch(name))


def secret_in(path: Path) -> Secret:
    """Return the key that a file holds, as ``store.key_file`` has it. Raises ConfigError."""
    if is_secret_itself(str(path), Path()):
        raise ConfigError("expected the path of a file, got what may be the key itself", hint="write it to a file")
    content = read_secret(path, str(path))
    try:
        secret = parse(SCHEMA["store.key"], content, text=True, base=path.parent)
    except ConfigError as refused:
        raise ConfigError(f"{path}: {refused.detail}", hint=refused.hint) from refused
    assert isinstance(secret, Secret), "that setting is one"
    return secret


def _build(
    values: Mapping[str, object], profile: str, origins: Mapping[str, Origin], *, clients: Iterable[str]
) -> Settings:
    sections: dict[str, dict[str, object]] = {name: {} for name in SECTIONS}
    for key, setting in SCHEMA.items():
        sections[setting.section][setting.name] = values[key]
    make: Callable[..., Settings] = Settings
    make_client: Callable[..., ClientSettings] = ClientSettings
    return make(
        profile=profile,
        clients=MappingProxyType(
            {
                client: make_client(**{name: values[each.key] for name, each in client_schema(client).items()})
                for client in clients
            }
        ),
        origins=MappingProxyType(dict(origins)),
        **{name: shape(**sections[name]) for name, shape in SECTIONS.items()},
    )


def _first(name: str, *layers: Iterable[Variable]) -> Variable | None:
    return next((each for layer in layers for each in layer if each.name == name and each.value.strip()), None)


def _profile(flag: str | None, variable: Variable | None) -> str:
    name, place = flag, "flag --profile"
    if name is None:
        name, place = (variable.value.strip(), str(variable.origin)) if variable else ("default", "default")
    if not PROFILE.fullmatch(name):
        raise ConfigError(
            f"profile ({place}): expected {PROFILE_NAME}, got {redacted(name, text=True)}",
            hint="the name becomes part of a file name: choose another",
        )
    return name


def _toml_file(
    flag: Path | None, variable: Variable | None, environ: Mapping[str, str], cwd: Path
) -> tuple[Path, bytes | None, bool]:
    """Return the path of the TOML file, its content, None if there is no file, and whether it is one of this folder.

    The user's own folder is named by the user's own environment; ``.env``, which may name a file, is found itself.
    """
    named: tuple[Path, str, bool] | None = None
    if flag is not None:
        named = flag, "flag --config", False
    elif variable is not None:
        named = Path(variable.value.strip()), str(variable.origin), bool(variable.origin.found)
    if named is not None:
        given, place, found = named
        path, what = cwd / expanded(given), f"the configuration file ({place})"
        try:
            check_no_api_key(str(path))
        except ConfigError as refused:
            raise ConfigError(f"{what} {refused.detail}", hint=refused.hint) from refused
        content = read_found(path, what, accept=_NAME_IT) if found else read(path, what)
        if content is None:
            raise ConfigError(f"{what} does not exist: {path}", hint="fix the path, or remove it")
        return path, content, found
    user = (config_folder(environ) or NOWHERE) / "config.toml"
    for path in (cwd / "slproxy.toml", user):
        content = read_found(path, "the configuration file", accept=_NAME_IT)
        if content is not None:
            return path, content, path is not user
    return user, None, False


def _parsed(raw: RawValue) -> tuple[object, Origin]:
    given, origin = _mounted(raw) if raw.from_file else (raw.value, raw.origin)
    try:
        value = parse(raw.setting, given, text=raw.text or raw.from_file, base=raw.base)
        if raw.setting.kind == "file":
            assert isinstance(value, Path)
            check_readable(value)
        if raw.setting.kind == "path":
            check_no_folder(str(value))
    except ConfigError as refused:
        raise ConfigError(f"{raw.setting.key} ({origin}): {refused.detail}", hint=refused.hint) from refused
    return value, origin


def _mounted(raw: RawValue) -> tuple[str, Origin]:
    """Return the content of a mounted secret, and where it is."""
    key = raw.setting.key
    if not isinstance(raw.value, str) or not raw.value:
        raise ConfigError(f"{key}_file ({raw.origin}): expected the path of a file", hint="or give the value itself")
    if is_secret_itself(raw.value, raw.base):
        raise ConfigError(
            f"{key}_file ({raw.origin}): expected the path of a file, got what may be the secret itself",
            hint=f"give that to {raw.setting.variables[0]}; before the name of a file, write ./",
        )
    try:
        path = raw.base / expanded(Path(raw.value))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{key}_file ({raw.origin}): is no path", hint="give the path of a file") from error
    origin = replace(raw.origin, path=str(path))
    return read_secret(path, f"{key} ({origin})"), origin
