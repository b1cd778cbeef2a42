"""System keyring, by the ``keyring`` library.

Its calls block, and may wait for a person to unlock it: they are made in threads.

A backend may lose, cut or change what it is given without a word: `keyring.backends.null` keeps nothing, others keep it
for as long as this process runs. So nothing counts as kept until another process has read it back.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
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
# What to do about a keyring that is of no use.
CHANGE = "Choose another by PYTHON_KEYRING_BACKEND. Or set store.kind = file, with store.key or store.encryption = off."
# What says on Linux that there may be a keyring: a desktop's bus, or somebody who chose one.
DESKTOP, CHOICE = "DBUS_SESSION_BUS_ADDRESS", "PYTHON_KEYRING_BACKEND"

# What another process does to read a secret back: it tells the hash alone.
READ_BACK = """
import hashlib, sys, keyring
value = keyring.get_password(*sys.argv[1:])
print("" if value is None else hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest())
"""
# How long that may take, in seconds: a person may have to unlock the keyring.
READ_BACK_TIMEOUT = 30.0


class SystemKeyring:
    """The keyring of this machine's user."""

    def __init__(self, backend: KeyringBackend) -> None:
        self._backend = backend
        self.description = f"the keyring ({backend.name})"
        self._is_proven = False

    def get(self, name: str) -> str | None:
        """Return a secret, or ``None``. Raises StoreError when the keyring cannot be asked."""
        try:
            return self._backend.get_password(SERVICE, name)
        except Exception as error:  # plug-ins have no errors in common
            raise _failed(error) from error

    def set(self, name: str, value: str) -> None:
        """Store a secret, and read it back: the first one from another process as well. Raises StoreError."""
        try:
            self._backend.set_password(SERVICE, name, value)
        except Exception as error:  # plug-ins have no errors in common
            raise StoreError(
                f"The keyring ({self._backend.name}) refused a secret of {len(value)} characters"
                f" ({type(error).__name__}).",
                hint=CHANGE,
            ) from error
        self._is_proven = self.get(name) == value and (self._is_proven or _is_kept(name, value))
        if not self._is_proven:
            raise StoreError(f"The keyring ({self._backend.name}) does not keep what it is given.", hint=CHANGE)

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


def _is_kept(name: str, value: str) -> bool:
    """Tell whether another process reads the same secret from the keyring."""
    # Without our own secrets, which it does not need; -P: a `keyring.py` of the current folder is not the library.
    env = {key: each for key, each in os.environ.items() if not key.startswith(("SALESLOFT_", "SLPROXY_"))}
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, and names of our own
            [sys.executable, "-P", "-W", "ignore", "-c", READ_BACK, SERVICE, name],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=READ_BACK_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False  # what cannot be checked does not count
    return done.stdout.split()[-1:] == [hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest().encode()]


def find() -> SystemKeyring | None:
    """Return the keyring, or ``None`` where there is none: the one that somebody chose, or one that is recommended.

    Raises StoreError when the one that was chosen does not work.
    """
    try:
        chosen = CHOICE in os.environ or load_config() is not None
    except RuntimeError:
        return None  # Path.home's, of a user without a home folder: nor is there a keyring in it
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
