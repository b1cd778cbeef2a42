"""Token encryption: Fernet (AES-128-CBC with HMAC-SHA-256), by a key of the settings or of the keyring.

1. A wrong key is an error that destroys nothing: what cannot be decrypted is left as it is.
2. ``auto`` encrypts where a key can be had, and says once where none can.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from slproxy.config import Encryption, Secret
from slproxy.errors import UndecryptableError
from slproxy.store.keys import SETTINGS_KEY, Key, Keyring, Keys
from slproxy.untrusted import parse_json

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

# Another number is another program's, or a later version's.
FORMAT = "slproxy-sealed-1"
SALT_BYTES = 16
# What is written to try a place out: as long as a login and of the same characters, and none.
TRIAL = b'{"Trial": "slproxy tries whether a login can be stored here; delete this. ' + 100 * b"Aa0_-/+. ~" + b'"}'
# scrypt's cost for interactive use (RFC 7914 §2; 16 MiB, 50 ms): a key in the settings may be a phrase.
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1


class TokenCipher:
    """Encrypts and decrypts what is stored, or leaves it plain."""

    def __init__(self, encryption: Encryption, *, key: Secret | None, keyring: Callable[[], Keyring | None]) -> None:
        """``keyring`` returns the keyring, or ``None`` on a machine without; it may take a while."""
        self._keys = Keys(encryption, key=key, keyring=keyring)
        self._fernets: dict[tuple[Key, bytes], Fernet] = {}
        # The key and the salt of the last record that was decrypted or encrypted.
        self._current: tuple[Key, bytes] | None = None
        # The key and the salt of every record from now on, once the key was changed.
        self._next: tuple[Key, bytes] | None = None
        # How the stored record was last seen or made.
        self.description = "not looked at yet"

    def decrypt(self, stored: bytes) -> bytes:
        """Return the plain text; what was stored as such stays so.

        Raises:
            UndecryptableError: the key is missing or wrong.
            StoreError: the keyring cannot be asked.
            ValueError: the text is damaged.
        """
        document = _encrypted(stored)
        if document is None:
            self.description = "not encrypted"
            return stored
        name, salt_text, sealed = (str(document.get(part, "")) for part in ("key", "salt", "sealed"))
        salt = base64.b64decode(salt_text, validate=True)
        from cryptography.fernet import InvalidToken  # noqa: PLC0415  # 7 MB that nobody needs who encrypts nothing

        for key in self._candidates(name):
            try:
                plain = self._fernet(key, salt).decrypt(sealed.encode())
            except InvalidToken:
                continue
            self._current = (key, salt)
            self.description = f"encrypted, key {self._keys.place(name)}"
            return plain
        raise UndecryptableError(
            f"The stored token cannot be decrypted with the key {self._keys.place(name)}.",
            hint="Give the key that it was encrypted with (nothing was changed), or run: slproxy login --replace",
        )

    def _candidates(self, name: str) -> Iterator[Key]:
        # After a change both keys of the settings go by the same name.
        if self._next is not None and self._next[0].name == name:
            yield self._next[0]
        yield self._keys.named(name)

    def encrypt(self, plain: bytes) -> bytes:
        """Return what to store. Raises StoreError when the key that is asked for cannot be had."""
        current = self._next or self._current_as_set()
        if current is None:
            key = self._keys.to_encrypt_with()
            if key is None:
                self.description = f"not encrypted ({self._keys.unfit})" if self._keys.unfit else "not encrypted"
                return plain
            self._current = current = (key, secrets.token_bytes(SALT_BYTES))
        key, salt = current
        self.description = f"encrypted, key {self._keys.place(key.name)}"
        document = {
            "format": FORMAT,
            "key": key.name,
            "salt": base64.b64encode(salt).decode(),
            "sealed": self._fernet(key, salt).encrypt(plain).decode(),
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    def try_out(self) -> bytes:
        """Encrypt something, and return what it may become in a store; a key that was made for it is deleted again.

        Raises StoreError when what is asked for cannot be had.
        """
        before = self._current
        text = self.encrypt(TRIAL)
        if self._current is not None and self._current != before:
            self._keys.delete(self._current[0])
            self._current = before
        return text

    def _current_as_set(self) -> tuple[Key, bytes] | None:
        """Return the key and the salt of the last record, if they are what the settings ask for now."""
        if not self._keys.encrypts or self._current is None:
            return None
        is_of_settings = self._current[0].name == SETTINGS_KEY
        return self._current if is_of_settings == self._keys.uses_settings else None

    def change_key(self, new: Secret | None) -> Callable[[], None]:
        """Encrypt with another key from now on: the ``new`` one, or one that the keyring is given.

        Returns what deletes the old one, to be called when nothing is encrypted with it any more. Raises StoreError.
        """
        old = self._current
        key = self._keys.new() if new is None else Key(name=SETTINGS_KEY, value=new.reveal())
        self._next = (key, secrets.token_bytes(SALT_BYTES))

        def delete_old() -> None:
            if old is not None and old[0].name != key.name:
                self._keys.delete(old[0])

        return delete_old

    def _fernet(self, key: Key, salt: bytes) -> Fernet:
        from cryptography.fernet import Fernet  # noqa: PLC0415  # as above

        cached = self._fernets.get((key, salt))
        if cached is None:
            derived = hashlib.scrypt(
                key.value.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=32, maxmem=64 * 2**20
            )
            cached = self._fernets[(key, salt)] = Fernet(base64.urlsafe_b64encode(derived))
        return cached


def _encrypted(stored: bytes) -> dict[str, object] | None:
    """Return the parts of an encrypted record, or ``None`` for any other text."""
    try:
        document = parse_json(stored)
    except ValueError:
        return None
    return document if isinstance(document, dict) and document.get("format") == FORMAT else None
