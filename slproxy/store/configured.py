"""Store and cipher that the settings name."""

from __future__ import annotations

from slproxy.config import Settings
from slproxy.store.cipher import TokenCipher
from slproxy.store.file import FileStore
from slproxy.store.keys import Keyring
from slproxy.store.memory import MemoryStore
from slproxy.store.record import Owner
from slproxy.store.redis import RedisStore
from slproxy.store.token_store import TokenStore


def owner_of(settings: Settings) -> Owner:
    """Return whose login is used by the settings."""
    return Owner(
        client_id=settings.auth.client_id or "",
        accounts_url=settings.upstream.accounts_url,
        profile=settings.profile,
        api_url=settings.upstream.api_url,
    )


def token_cipher(settings: Settings) -> TokenCipher:
    """Return what encrypts the login by the settings."""
    rules = settings.store

    def keyring() -> Keyring | None:
        if rules.kind == "redis":
            return None  # other machines could not decrypt it
        from slproxy.store.system_keyring import find  # noqa: PLC0415  # its library takes 50 ms to load

        return find()

    return TokenCipher(rules.encryption, key=rules.key, keyring=keyring)


def token_store(settings: Settings, *, cipher: TokenCipher | None = None) -> TokenStore:
    """Return the store that the settings name."""
    rules = settings.store
    cipher = cipher or token_cipher(settings)
    match rules.kind:
        case "memory":
            return MemoryStore()
        case "keyring":
            from slproxy.store.keyring import KeyringStore  # noqa: PLC0415  # its library takes 50 ms to load

            return KeyringStore(settings.profile, lock_path=rules.path.with_suffix(".keyring.lock"))
        case "redis":
            assert rules.redis_url is not None, "config refuses redis without an address"
            return RedisStore(rules.redis_url, settings.profile, cipher)
    return FileStore(rules.path, cipher)
