"""The token at rest."""

from slproxy.store.cipher import TokenCipher
from slproxy.store.configured import owner_of, token_cipher, token_store
from slproxy.store.file import FileStore
from slproxy.store.memory import MemoryStore
from slproxy.store.record import Owner, Record
from slproxy.store.redis_client import connect_redis, redis_errors
from slproxy.store.token import CLOCK_TOLERANCE, Token
from slproxy.store.token_store import TokenStore

__all__ = [
    "CLOCK_TOLERANCE",
    "FileStore",
    "MemoryStore",
    "Owner",
    "Record",
    "Token",
    "TokenCipher",
    "TokenStore",
    "connect_redis",
    "owner_of",
    "redis_errors",
    "token_cipher",
    "token_store",
]
