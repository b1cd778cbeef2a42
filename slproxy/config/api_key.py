"""API keys: what SalesLoft's look like, wherever they stand.

One in the wrong setting, since two mounted secrets were swapped or a variable was misread, would be shown by ``config``
and by each message that repeats a value.
"""

from __future__ import annotations

import re

from slproxy.errors import ConfigError

# docs/salesloft.md, OAuth
_API_KEY = re.compile(r"(v2_ak_[A-Za-z0-9-]+|ak)_[0-9A-Fa-f]{64}")
# A quarter of the digits is enough: what was cut in copying, or has something around it, is a secret as well.
_WITHIN = re.compile(r"(?<![A-Za-z0-9])ak_([A-Za-z0-9-]+_)?[0-9A-Fa-f]{16}", re.IGNORECASE)
# No word is as long; the tokens and client secrets of SalesLoft have 64 hexadecimal digits.
_LONG = re.compile(r"[A-Za-z0-9]{32}")


def is_api_key(text: str) -> bool:
    """Tell whether a text has the form of SalesLoft's API keys, as far as it is known."""
    return _API_KEY.fullmatch(text) is not None


def holds_api_key(text: str) -> bool:
    """Tell whether a text plainly holds an API key of SalesLoft's, or a good part of one."""
    return _WITHIN.search(text) is not None


def may_be_secret(text: str) -> bool:
    """Tell whether a message must not repeat a text, since it may hold a secret."""
    return holds_api_key(text) or _LONG.search(text) is not None


def check_no_api_key(text: str) -> None:
    """Raise ConfigError, worded to follow the name of a setting that is no secret, if ``text`` holds an API key."""
    if holds_api_key(text):
        raise ConfigError(
            "looks like an API key of SalesLoft's, which belongs in auth.api_key",
            hint="set SALESLOFT_API_KEY to it, or SALESLOFT_API_KEY_FILE to its file; fix or remove this one",
        )
