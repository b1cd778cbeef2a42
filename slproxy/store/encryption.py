"""What encrypts a token at rest: Fernet (AES-128-CBC with HMAC-SHA-256), by a key of the settings or of the keyring.

1. A wrong key is an error that destroys nothing: what cannot be opened is left as it is.
2. A key of the keyring goes by a name that the sealed file repeats, so that changing it never leaves a file whose key
   is gone, at whatever point the change is cut off.
3. ``auto`` seals where a key can be had, and says once where none can.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from slproxy.config import Encryption, Secret
from slproxy.errors import StoreError, UndecryptableError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


log = logging.getLogger("slproxy.store")

# What a sealed file calls itself.
FORMAT = "slproxy-sealed-1"
# The name of the key that the settings give.
GIVEN = "store.key"
SALT_BYTES = 16
# scrypt's cost for interactive use (RFC 7914 §2; 16 MiB, 50 ms): a key in the settings may be a phrase.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1


class Keyring(Protocol):
    """Where keys are kept besides the settings."""

    description: str

    def get(self, name: str) -> str | None:
        """Return a secret, or ``None``. Raises StoreError when the keyring cannot be asked."""

    def set(self, name: str, value: str) -> None:
        """Keep a secret. Raises StoreError."""

    def delete(self, name: str) -> None:
        """Forget a secret. Raises StoreError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A key and the name that a sealed file repeats."""

    name: str
    value: str = field(repr=False)


class TokenCipher:
    """Seals and opens what is kept, or leaves it plain."""

    def __init__(self, encryption: Encryption, *, key: Secret | None, keyring: Callable[[], Keyring | None]) -> None:
        """``keyring`` returns the keyring, or ``None`` on a machine without; it may take a while."""
        self._encryption = encryption
        self._given = None if key is None else Key(name=GIVEN, value=key.reveal())
        self._find_keyring = keyring
        self._found: Keyring | None = None
        self._looked = False
        self._fernets: dict[tuple[Key, bytes], Fernet] = {}
        # The key and the salt that the last text was opened with, or that the next one is sealed with.
        self._current: tuple[Key, bytes] | None = None
        # What all that comes is sealed with, once the key was changed.
        self._next: tuple[Key, bytes] | None = None
        # How what is kept was last seen or made.
        self.description = "not looked at yet"

    def decrypt(self, kept: bytes) -> bytes:
        """Return what was sealed; what is plain stays so.

        Raises:
            UndecryptableError: the key is missing or wrong.
            StoreError: the keyring cannot be asked.
            ValueError: the text is damaged.
        """
        document = _sealed(kept)
        if document is None:
            self.description = "not encrypted"
            return kept
        name, salt_text, sealed = (str(document.get(part, "")) for part in ("key", "salt", "sealed"))
        salt = base64.b64decode(salt_text, validate=True)
        from cryptography.fernet import InvalidToken  # noqa: PLC0415  # 7 MB that nobody needs who seals nothing

        for key in self._keys_named(name):
            try:
                opened = self._fernet(key, salt).decrypt(sealed.encode())
            except InvalidToken:
                continue
            self._current = (key, salt)
            self.description = f"encrypted, key {self._place(name)}"
            return opened
        raise UndecryptableError(
            f"The stored token does not open with the key {self._place(name)}.",
            hint="Give the key that it was sealed with (nothing was changed), or run: slproxy login --replace",
        )

    def encrypt(self, plain: bytes) -> bytes:
        """Return what to keep. Raises StoreError when the key that is asked for cannot be had."""
        current = self._next or self._current
        given = self._given is not None and self._encryption in ("auto", "key")
        if self._next is None and (
            self._encryption == "off" or (current is not None and (current[0].name == GIVEN) != given)
        ):
            current = None  # what it was opened with is not what the settings ask for now
        if current is None:
            key = self._key_to_encrypt_with()
            if key is None:
                self.description = "not encrypted"
                return plain
            self._current = current = (key, secrets.token_bytes(SALT_BYTES))
        key, salt = current
        self.description = f"encrypted, key {self._place(key.name)}"
        document = {
            "format": FORMAT,
            "key": key.name,
            "salt": base64.b64encode(salt).decode(),
            "sealed": self._fernet(key, salt).encrypt(plain).decode(),
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    def change_key(self, given: Secret | None) -> Callable[[], None]:
        """TokenCipher with another key from now on: the ``given`` one, or a new one of the keyring.

        Returns what forgets the old one, to be called when nothing is sealed with it any more. Raises StoreError.
        """
        old = self._current
        if given is not None:
            key = Key(name=GIVEN, value=given.reveal())
        else:
            keyring = self._keyring()
            if keyring is None:
                raise StoreError(
                    "This machine has no keyring for a new key.", hint="Give it by a file: --new-key-file FILE"
                )
            key = self._new_key(keyring)
        self._next = (key, secrets.token_bytes(SALT_BYTES))

        def forget() -> None:
            keyring = self._keyring()
            if keyring is not None and old is not None and old[0].name not in (GIVEN, key.name):
                keyring.delete(old[0].name)

        return forget

    def _key_to_encrypt_with(self) -> Key | None:
        if self._encryption == "off":
            return None
        if self._given is not None and self._encryption in ("auto", "key"):
            return self._given
        if self._encryption == "key":
            raise StoreError("store.encryption = key, and store.key is not set.", hint="Set it, or store.key_file.")
        keyring = self._keyring()
        if keyring is None:
            if self._encryption == "keyring":
                raise StoreError(
                    "store.encryption = keyring, and this machine has no keyring that works.",
                    hint="Set store.key, or store.encryption = off.",
                )
            return None
        try:
            return self._new_key(keyring)
        except StoreError as error:
            if self._encryption == "keyring":
                raise
            log.warning("%s The token is kept without encryption.", error.detail)
            return None

    def _new_key(self, keyring: Keyring) -> Key:
        name = f"store-key-{secrets.token_hex(4)}"
        key = Key(name=name, value=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
        keyring.set(name, key.value)
        return key

    def _keys_named(self, name: str) -> Iterator[Key]:
        if self._next is not None and self._next[0].name == name:
            yield self._next[0]
        yield self._key_named(name)

    def _key_named(self, name: str) -> Key:
        if name == GIVEN:
            if self._given is None:
                raise UndecryptableError(
                    "The stored token is encrypted, and store.key is not set.",
                    hint="Set SLPROXY_STORE__KEY_FILE to the file that holds the key.",
                )
            return self._given
        keyring = self._keyring()
        value = keyring.get(name) if keyring is not None else None
        if value is None:
            raise UndecryptableError(
                "The stored token is encrypted, and its key is not in this machine's keyring.",
                hint="Unlock the keyring it was made with. Or log in again: slproxy login --replace",
            )
        return Key(name=name, value=value)

    def _keyring(self) -> Keyring | None:
        if not self._looked:
            self._found, self._looked = self._find_keyring(), True
        return self._found

    def _place(self, name: str) -> str:
        return "in store.key" if name == GIVEN else f"in {self._found.description if self._found else 'a keyring'}"

    def _fernet(self, key: Key, salt: bytes) -> Fernet:
        from cryptography.fernet import Fernet  # noqa: PLC0415  # as above

        cached = self._fernets.get((key, salt))
        if cached is None:
            derived = hashlib.scrypt(
                key.value.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=32, maxmem=64 * 2**20
            )
            cached = self._fernets[(key, salt)] = Fernet(base64.urlsafe_b64encode(derived))
        return cached


def _sealed(kept: bytes) -> dict[str, object] | None:
    """Return the parts of a sealed text, or ``None`` for any other."""
    try:
        document = json.loads(kept)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and document.get("format") == FORMAT:
        return document
    return None
