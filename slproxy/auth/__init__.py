"""Ways to authenticate, and the token in use.

``credentials`` is what ``forward`` asks: the ``token_in_use``, renewed by ``renewer`` from the ``token_endpoint``
(``schedule``: when; ``verdict``: was it of use; ``refresher``: in the background), and kept as the ``stored_login``. A
person logs in through ``login``, ``callback_server`` and ``save_login``.
"""

from slproxy.auth import oauth
from slproxy.auth.callback_server import CallbackServer, callback_server
from slproxy.auth.credentials import Credentials
from slproxy.auth.identity import Identity, parse_identity
from slproxy.auth.login import begin_login, exchange_code
from slproxy.auth.login_attempt import LoginAttempt
from slproxy.auth.oauth import Form
from slproxy.auth.pasted import parse_pasted
from slproxy.auth.save_login import save_login
from slproxy.auth.stored_login import check_found, hides_login
from slproxy.auth.token_in_use import Bearer
from slproxy.auth.token_reply import TokenEndpointReply

__all__ = [
    "Bearer",
    "CallbackServer",
    "Credentials",
    "Form",
    "Identity",
    "LoginAttempt",
    "TokenEndpointReply",
    "begin_login",
    "callback_server",
    "check_found",
    "exchange_code",
    "hides_login",
    "oauth",
    "parse_identity",
    "parse_pasted",
    "save_login",
]
