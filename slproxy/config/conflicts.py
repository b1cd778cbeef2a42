"""Settings that exclude each other."""

from __future__ import annotations

from collections.abc import Iterator

from slproxy.config import found, patterns
from slproxy.config.hosts import is_loopback
from slproxy.config.messages import redacted
from slproxy.config.schema import OWN_PAGES, ClientSettings, PolicySettings, Settings
from slproxy.errors import ConfigError

# The least characters of a local key that other machines can try.
MIN_KEY = 16


def check(settings: Settings) -> None:
    """Raise ConfigError when settings exclude each other."""
    raise_errors(list(_conflicts(settings)))


def check_listening(settings: Settings) -> None:
    """Raise ConfigError when others than this user could use a proxy that listens so, and nobody said that they may."""
    listen, origin = settings.listen, settings.origin
    keys = settings.keys
    if listen.allow_unauthenticated:
        return
    if listen.uds is not None:
        # connect(2) wants the right to write.
        if listen.uds_mode & 0o022 and not keys and not listen.allow_other_users:
            raise ConfigError(
                f"listen.uds_mode ({origin('listen.uds_mode')}): {listen.uds_mode:04o} lets other users connect, and"
                " listen.key is not set: they could act with your token",
                hint="set listen.key, set uds_mode to 0600, or set listen.allow_other_users = true",
            )
        return
    if is_loopback(listen.host):
        return
    where = (
        f"listen.host ({origin('listen.host')}): {listen.host or 'every address'} can be reached from other machines"
    )
    if not keys:
        raise ConfigError(
            f"{where}, and listen.key is not set: anyone there could act with your token",
            hint="set listen.key, listen on 127.0.0.1, or set listen.allow_unauthenticated = true",
        )
    for name, key in keys.items():
        if len(key.reveal()) < MIN_KEY:
            raise ConfigError(
                f"{where}, and {name} ({origin(name)}) has under {MIN_KEY} characters: it could be guessed",
                hint="make a long random one: slproxy key",
            )


def raise_errors(errors: list[ConfigError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        lines = [each.detail + (f" ({each.hint})" if each.hint else "") for each in errors]
        raise ConfigError("\n".join([f"{len(lines)} errors in the settings:", *lines]))


def _conflicts(settings: Settings) -> Iterator[ConfigError]:
    """Yield what is wrong between two settings."""
    listen, auth, origin = settings.listen, settings.auth, settings.origin
    yield from found.conflicts(settings)
    yield from found.conflicts_of_paths(settings)
    for key in ("listen.host", "listen.port"):
        if listen.uds is not None and settings.is_set(key):
            yield ConfigError(
                f"listen.uds ({origin('listen.uds')}) and {key} ({origin(key)}): the proxy listens on a"
                " socket or on a port, not both",
                hint="remove one of the two",
            )
    metrics = settings.metrics
    if metrics.port and metrics.port == listen.port and listen.uds is None:
        yield ConfigError(
            f"metrics.port ({origin('metrics.port')}) is listen.port ({origin('listen.port')})",
            hint="choose another one, such as 9464",
        )
    yield from _policy_conflicts(settings)
    yield from _name_conflicts(settings)
    yield from _key_conflicts(settings)
    yield from _budget_conflicts(settings)
    if auth.client_secret is not None and auth.client_id is None:
        yield ConfigError(
            f"auth.client_secret ({origin('auth.client_secret')}) is set, and auth.client_id is not: they are a pair",
            hint="set SALESLOFT_CLIENT_ID as well",
        )
    yield from _store_conflicts(settings)


def _policy_conflicts(settings: Settings) -> Iterator[ConfigError]:
    origin = settings.origin
    sections: dict[str, PolicySettings | ClientSettings] = {"policy": settings.policy}
    forwarded = (*PolicySettings().accept_paths, *settings.policy.accept_paths)
    sections |= {f"client.{name}": client for name, client in settings.clients.items()}
    for section, rules in sections.items():
        for name, pattern, why in patterns.faults(
            section, accept=rules.accept_paths, reject=rules.reject_paths, forwarded=forwarded, own=OWN_PAGES
        ):
            key = f"{section}.{name}"
            yield ConfigError(f"{key} ({origin(key)}): {redacted(pattern, text=True)} {why}", hint="fix or remove it")


def _budget_conflicts(settings: Settings) -> Iterator[ConfigError]:
    origin, mode = settings.origin, settings.pace.mode
    for key, client in ((f"client.{name}.budget", client) for name, client in settings.clients.items()):
        if client.budget is not None and mode != "pace":
            yield ConfigError(
                f"{key} ({origin(key)}) is set, and pace.mode ({origin('pace.mode')}) is {mode}: it would not hold",
                hint="remove one of the two",
            )


def _name_conflicts(settings: Settings) -> Iterator[ConfigError]:
    known = dict[str, str]()
    for name in settings.clients:
        if (other := known.setdefault(name.replace("-", "_"), name)) != name:
            yield ConfigError(
                f"client.{other} and client.{name} are the same in the environment, where `_` stands for `-`",
                hint="give one of them another name",
            )


def _key_conflicts(settings: Settings) -> Iterator[ConfigError]:
    origin, known = settings.origin, dict[str, str]()
    for name, key in settings.keys.items():
        if (other := known.setdefault(key.reveal(), name)) != name:
            yield ConfigError(
                f"{other} ({origin(other)}) and {name} ({origin(name)}) are the same: a client is known by its key",
                hint="give each its own; slproxy key prints one",
            )


def _store_conflicts(settings: Settings) -> Iterator[ConfigError]:
    store, origin = settings.store, settings.origin
    if store.kind == "file" and settings.log.audit == store.path:
        yield ConfigError(
            f"log.audit ({origin('log.audit')}) and store.path ({origin('store.path')}) are the same: its lines would"
            " destroy the login",
            hint="name another file for the audit",
        )
    if store.kind == "redis" and store.redis_url is None:
        yield ConfigError(
            f"store.kind ({origin('store.kind')}): redis needs store.redis_url",
            hint="such as redis://localhost:6379/0",
        )
    if store.encryption == "key" and store.key is None:
        yield ConfigError(
            f"store.encryption ({origin('store.encryption')}): key needs store.key",
            hint="set SLPROXY_STORE__KEY_FILE to a file that holds it",
        )
    if store.key is not None and (store.encryption in ("keyring", "off") or store.kind in ("memory", "keyring")):
        plain_kind = store.kind in ("memory", "keyring")
        why = f"store.kind is {store.kind}" if plain_kind else f"store.encryption is {store.encryption}"
        yield ConfigError(
            f"store.key ({origin('store.key')}) is set, and would not be used: {why}",
            hint="remove one of the two",
        )
    if store.encryption == "keyring" and store.kind != "file":
        yield ConfigError(
            f"store.encryption ({origin('store.encryption')}): keyring is for store.kind = file",
            hint="remove it, or use store.key",
        )
