"""The token at rest."""

from slproxy.store.encryption import Keyring, TokenCipher
from slproxy.store.file import FileStore
from slproxy.store.memory import MemoryStore
from slproxy.store.record import Record, Token
from slproxy.store.select import token_cipher, token_store
from slproxy.store.store import TokenStore

__all__ = [
    "FileStore",
    "Keyring",
    "MemoryStore",
    "Record",
    "Token",
    "TokenCipher",
    "TokenStore",
    "token_cipher",
    "token_store",
]
