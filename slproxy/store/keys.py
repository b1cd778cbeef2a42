"""Encryption keys: the one of the settings, or one of the system's keyring, each by its name.

A key of the keyring goes by a name that the encrypted record repeats, so that changing it never leaves a record whose
key is gone, at whatever point the change is cut off.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from slproxy.config import Encryption, Secret
from slproxy.errors import StoreError, UndecryptableError

log = logging.getLogger("slproxy.store")

# The name of the key that the settings hold.
SETTINGS_KEY = "store.key"


class Keyring(Protocol):
    """Where keys are kept besides the settings."""

    description: str

    def get(self, name: str) -> str | None:
        """Return a secret, or ``None``. Raises StoreError when the keyring cannot be asked."""

    def set(self, name: str, value: str) -> None:
        """Store a secret. Raises StoreError when it would not be there for another process."""

    def delete(self, name: str) -> None:
        """Delete a secret. Raises StoreError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A key and the name that an encrypted record repeats."""

    name: str
    value: str = field(repr=False)


class Keys:
    """The keys that the settings name."""

    def __init__(self, encryption: Encryption, *, key: Secret | None, keyring: Callable[[], Keyring | None]) -> None:
        """``keyring`` returns the keyring, or ``None`` on a machine without; it may take a while."""
        self._encryption = encryption
        self._from_settings = None if key is None else Key(name=SETTINGS_KEY, value=key.reveal())
        self._find_keyring = keyring
        self._keyring: Keyring | None = None
        self._searched = False
        # Why the keyring is of no use, where `auto` does without.
        self.unfit = ""

    @property
    def encrypts(self) -> bool:
        """Whether the settings let anything be encrypted."""
        return self._encryption != "off"

    @property
    def uses_settings(self) -> bool:
        """Whether the key of the settings is the one to encrypt with."""
        return self._from_settings is not None and self._encryption in ("auto", "key")

    def to_encrypt_with(self) -> Key | None:
        """Return the key to encrypt with, or ``None`` for plain text. Raises StoreError when it cannot be had."""
        if not self.encrypts:
            return None
        if self.uses_settings:
            return self._from_settings
        if self._encryption == "key":
            raise StoreError("store.encryption = key, and store.key is not set.", hint="Set it, or store.key_file.")
        if self.unfit:
            return None
        if self.keyring() is None:
            if self._encryption == "keyring":
                raise StoreError(
                    "store.encryption = keyring, and this machine has no keyring that works.",
                    hint="Set store.key, or store.encryption = off.",
                )
            return None
        try:
            return self.new()
        except StoreError as error:
            if self._encryption == "keyring":
                raise
            self.unfit = error.detail.rstrip(".")
            log.warning("%s The token is stored without encryption.", error.detail)
            return None

    def new(self) -> Key:
        """Return a new key of the keyring. Raises StoreError."""
        keyring = self.keyring()
        if keyring is None:
            raise StoreError(
                "This machine has no keyring for a new key.", hint="Give it by a file: --new-key-file FILE"
            )
        key = Key(
            name=f"store-key-{secrets.token_hex(4)}",
            value=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        )
        try:
            keyring.set(key.name, key.value)
        except StoreError:
            with contextlib.suppress(StoreError):  # it is of no use, and mostly not there
                keyring.delete(key.name)
            raise
        return key

    def named(self, name: str) -> Key:
        """Return the key that an encrypted record names. Raises UndecryptableError and StoreError."""
        if name == SETTINGS_KEY:
            if self._from_settings is None:
                raise UndecryptableError(
                    "The stored token is encrypted, and store.key is not set.",
                    hint="Set SLPROXY_STORE__KEY_FILE to the file that holds the key.",
                )
            return self._from_settings
        keyring = self.keyring()
        value = keyring.get(name) if keyring is not None else None
        if value is None:
            raise UndecryptableError(
                "The stored token is encrypted, and its key is not in this machine's keyring.",
                hint="Unlock the keyring it was made with. Or log in again: slproxy login --replace",
            )
        return Key(name=name, value=value)

    def delete(self, key: Key) -> None:
        """Delete a key of the keyring. Raises StoreError."""
        if key.name != SETTINGS_KEY and (keyring := self.keyring()) is not None:
            keyring.delete(key.name)

    def keyring(self) -> Keyring | None:
        """Return the keyring, or ``None`` on a machine without. Raises StoreError."""
        if not self._searched:
            self._keyring, self._searched = self._find_keyring(), True
        return self._keyring

    def place(self, name: str) -> str:
        """Say where a key is, for a person."""
        if name == SETTINGS_KEY:
            return "in store.key"
        return f"in {self._keyring.description if self._keyring else 'a keyring'}"
