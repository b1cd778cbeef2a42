"""Settings: what can be set, and where each value came from."""

from slproxy.config.api_key import holds_api_key
from slproxy.config.conflicts import check, check_listening
from slproxy.config.effective import effective
from slproxy.config.egress import Egress, EgressProxy
from slproxy.config.found import check_login, has_redirects
from slproxy.config.hosts import is_loopback
from slproxy.config.load import load, profiles, secret_in
from slproxy.config.patterns import covers, matcher, rejects
from slproxy.config.schema import (
    OWN_PAGES,
    PROBES,
    SCHEMA,
    AuthSettings,
    ClientSettings,
    Encryption,
    Grant,
    InspectSettings,
    LimitSettings,
    ListenSettings,
    MetricsSettings,
    PaceSettings,
    PolicySettings,
    RetrySettings,
    Settings,
    StoreSettings,
    UpstreamSettings,
    Via,
)
from slproxy.config.secret import Secret

__all__ = [
    "OWN_PAGES",
    "PROBES",
    "SCHEMA",
    "AuthSettings",
    "ClientSettings",
    "Egress",
    "EgressProxy",
    "Encryption",
    "Grant",
    "InspectSettings",
    "LimitSettings",
    "ListenSettings",
    "MetricsSettings",
    "PaceSettings",
    "PolicySettings",
    "RetrySettings",
    "Secret",
    "Settings",
    "StoreSettings",
    "UpstreamSettings",
    "Via",
    "check",
    "check_listening",
    "check_login",
    "covers",
    "effective",
    "has_redirects",
    "holds_api_key",
    "is_loopback",
    "load",
    "matcher",
    "profiles",
    "rejects",
    "secret_in",
]
