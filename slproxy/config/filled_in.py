"""Credentials that nobody filled in, or that came with more around them than they are.

SalesLoft answers each of these with the same 401 as a wrong key, and the hint to that cannot help. Real ones are long
hexadecimal numbers, so the rules are strict for SalesLoft's, and leave a key that its user has made up alone where
somebody might have meant it.
"""

from __future__ import annotations

import re

from slproxy.config.setting import Setting
from slproxy.errors import ConfigError

_QUOTED = re.compile(r"""(["'`]).*\1""", re.DOTALL)
_ASSIGNED = re.compile(r"(export\s+)?(SALESLOFT|SLPROXY)_\w+\s*=")
_SCHEME = re.compile(r"(bearer|basic|token)\s|bearer:", re.IGNORECASE)
# ${NAME}, #{NAME}, $(NAME) as Kubernetes has it, {{ name }}; where no dollar can be the user's own, $NAME and %NAME%.
_REFERENCE = re.compile(r"[$#]\{.*\}|\$\(.*\)|\{\{.*\}\}")
_BARE_REFERENCE = re.compile(r"\$[A-Za-z_]\w*|%[A-Za-z_]\w*%")
# Words in small letters, with a hyphen between them.
_PLACEHOLDER = re.compile(
    r"<.*>"
    r"|(.*-)?your-.*|.*-here|(insert|enter|paste)-.*|fill-?(me-?)?in|-+[a-z-]+-+|@+[a-z-]+@+"
    r"|(change|replace)-?(me|this|it|with)([^a-z].*)?"
    r"|(todo|tbd|fixme)([^a-z0-9].*)?|placeholder|redacted|null|none|nil|undefined"
)
_SALESLOFTS_PLACEHOLDER = re.compile(
    r".*<[a-z0-9 -]+>.*|\[.*\]|\{.*\}|your.*|.*\.\.\.|n/a"
    r"|(my|the|salesloft|example)-(api-key|client-id|client-secret)"
)
_ROW = re.compile(r"(v2)?(ak)?[x*.?#]{3,}")


def check_filled_in(setting: Setting, text: str) -> None:
    """Raise ConfigError when ``text`` plainly is not what it is there for, worded to follow the setting's name."""
    name = setting.variables[0]
    if len(text) > 1 and _QUOTED.fullmatch(text):
        raise ConfigError(
            "stands in quotes, which would be sent as part of it",
            hint=f"give {name} the value without them: docker run --env-file keeps them",
        )
    if _ASSIGNED.match(text):
        raise ConfigError(
            "begins with the name of a variable", hint=f"give {name} what comes after the =, and nothing else"
        )
    if _SCHEME.match(text):
        raise ConfigError(
            "begins with a word that belongs before it", hint=f"give {name} the key alone: slproxy adds Bearer"
        )
    if _REFERENCE.search(text) or (setting.credential and _BARE_REFERENCE.fullmatch(text)):
        raise ConfigError(
            "holds a reference to a variable that nothing has replaced",
            hint=f"give {name} the value itself, or name its file in {name}_FILE",
        )
    words = re.sub(r"[\s_-]+", "-", text.strip().lower())
    if (
        _PLACEHOLDER.fullmatch(words)
        or _ROW.fullmatch(words.replace("-", ""))
        or (setting.credential and _SALESLOFTS_PLACEHOLDER.fullmatch(words))
    ):
        raise ConfigError("is a placeholder, not a value", hint=f"give {name} the real one, or remove it")
