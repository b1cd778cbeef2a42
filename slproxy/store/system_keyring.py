"""System keyring, by the ``keyring`` library.

Its calls block, and may wait for a person to unlock it: they are made in threads.
"""

from __future__ import annotations

import os
import sys

import keyring
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.core import load_config
from keyring.errors import PasswordDeleteError

from slproxy.errors import StoreError

# The service that the entries belong to.
SERVICE = "slproxy"
# The keyring library's own mark for a backend that it recommends: encrypted, and there. Plain-text ones have less.
RECOMMENDED = 1
# What says on Linux that there may be a keyring: a desktop's bus, or somebody who chose one.
DESKTOP, CHOICE = "DBUS_SESSION_BUS_ADDRESS", "PYTHON_KEYRING_BACKEND"


class SystemKeyring:
    """The keyring of this machine's user."""

    def __init__(self, backend: KeyringBackend) -> None:
        self._backend = backend
        self.description = f"the keyring ({backend.name})"

    def get(self, name: str) -> str | None:
        """Return a secret, or ``None``. Raises StoreError when the keyring cannot be asked."""
        try:
            return self._backend.get_password(SERVICE, name)
        except Exception as error:  # plug-ins have no errors in common
            raise _failed(error) from error

    def set(self, name: str, value: str) -> None:
        """Store a secret. Raises StoreError."""
        try:
            self._backend.set_password(SERVICE, name, value)
        except Exception as error:  # plug-ins have no errors in common
            raise _failed(error) from error

    def delete(self, name: str) -> None:
        """Delete a secret. Raises StoreError."""
        try:
            self._backend.delete_password(SERVICE, name)
        except PasswordDeleteError:
            return  # there was none
        except Exception as error:  # plug-ins have no errors in common
            raise _failed(error) from error


def _failed(error: Exception) -> StoreError:
    return StoreError(
        f"The system's keyring does not answer ({type(error).__name__}).",
        hint="Unlock it, check PYTHON_KEYRING_BACKEND, or set store.kind = file and store.encryption = off.",
    )


def find() -> SystemKeyring | None:
    """Return the keyring, or ``None`` where there is none: the one that somebody chose, or one that is recommended.

    Raises StoreError when the one that was chosen does not work.
    """
    try:
        chosen = CHOICE in os.environ or load_config() is not None
    except Exception as error:  # plug-ins have no errors in common
        raise _failed(error) from error
    if not chosen and sys.platform == "linux" and DESKTOP not in os.environ:
        return None  # the library would look for a while, and leave traces in /tmp, to find nothing
    try:
        backend = keyring.get_keyring()
        fit = not isinstance(backend, NoKeyring) and (chosen or backend.priority >= RECOMMENDED)
    except Exception as error:  # plug-ins have no errors in common
        raise _failed(error) from error
    if not fit:
        return None
    return SystemKeyring(backend)
