"""Ways to authenticate, and the token in use."""

from slproxy.auth import login, oauth
from slproxy.auth.callback import callback
from slproxy.auth.credentials import Bearer, Credentials
from slproxy.auth.identity import Identity, identity_in
from slproxy.auth.oauth import Answer, Form

__all__ = [
    "Answer",
    "Bearer",
    "Credentials",
    "Form",
    "Identity",
    "callback",
    "identity_in",
    "login",
    "oauth",
]
