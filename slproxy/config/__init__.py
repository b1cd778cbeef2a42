"""Settings: what can be set, and where each value came from."""

from slproxy.config import schema
from slproxy.config.conflicts import check
from slproxy.config.effective import effective
from slproxy.config.load import load, profiles, secret_in
from slproxy.config.patterns import covers, rejects
from slproxy.config.rules import is_loopback
from slproxy.config.schema import (
    CATALOGUE,
    OWN_PAGES,
    AuthSettings,
    Encryption,
    Grant,
    LimitSettings,
    ListenSettings,
    RetrySettings,
    Settings,
    StoreSettings,
)
from slproxy.config.secret import Secret

__all__ = [
    "CATALOGUE",
    "OWN_PAGES",
    "AuthSettings",
    "Encryption",
    "Grant",
    "LimitSettings",
    "ListenSettings",
    "RetrySettings",
    "Secret",
    "Settings",
    "StoreSettings",
    "check",
    "covers",
    "effective",
    "is_loopback",
    "load",
    "profiles",
    "rejects",
    "schema",
    "secret_in",
]
