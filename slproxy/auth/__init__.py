"""Ways to authenticate, and the token in use."""

from slproxy.auth import login, oauth
from slproxy.auth.callback import callback
from slproxy.auth.credentials import Credentials
from slproxy.auth.identity import Identity, parse_identity
from slproxy.auth.oauth import Form
from slproxy.auth.token_in_use import Bearer
from slproxy.auth.token_reply import TokenEndpointReply

__all__ = [
    "Bearer",
    "Credentials",
    "Form",
    "Identity",
    "TokenEndpointReply",
    "callback",
    "login",
    "oauth",
    "parse_identity",
]
