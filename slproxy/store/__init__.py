"""The token at rest."""

from slproxy.store.encryption import Keyring, Seal
from slproxy.store.file import FileStore
from slproxy.store.memory import MemoryStore
from slproxy.store.record import Record, Token
from slproxy.store.select import seal_of, token_store
from slproxy.store.store import TokenStore

__all__ = [
    "FileStore",
    "Keyring",
    "MemoryStore",
    "Record",
    "Seal",
    "Token",
    "TokenStore",
    "seal_of",
    "token_store",
]
