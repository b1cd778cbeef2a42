"""Variables in ``.env``, each with its line."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from slproxy.config.files import decode_text, read_found
from slproxy.config.origin import Origin
from slproxy.config.variables import META, VARIABLES, Variable
from slproxy.errors import ConfigError

# Others keep their own .env in a folder that is shared; it is none of our business.
_OURS = re.compile(rb"^\s*(?:export\s+)?['\"]?((?:SLPROXY|SALESLOFT)_\w*)", re.MULTILINE | re.IGNORECASE)
_BEGINS_OURS = re.compile(r"\s*(?:export\s+)?['\"]?(?:SLPROXY|SALESLOFT)_")


def from_dotenv(cwd: Path, environ: Mapping[str, str]) -> Iterator[Variable]:
    """Yield the variables of ``.env``.

    Raises ConfigError for a line of ours that sets nothing: what it was meant to set, such as ``read_only``, would not
    hold.
    """
    path = cwd / ".env"

    def matters(untrusted: bytes) -> bool:
        """Tell whether it sets anything of ours that is not set in the environment, which goes before it."""
        return any(not environ.get(name.decode(), "").strip() for name in _OURS.findall(untrusted))

    # A folder of this name is somebody's virtual environment.
    content = (
        None
        if path.is_dir()
        else read_found(
            path, "the file of environment variables", accept="set its variables in the environment", matters=matters
        )
    )
    if content is None:
        return
    from dotenv.parser import parse_stream  # noqa: PLC0415  # as long to load as all settings, and few have the file

    found: dict[str, Variable] = {}
    bare: dict[str, int] = {}
    # dotenv_values, which uses this parser, gives no line numbers, and does not say which line it could not read.
    for binding in parse_stream(io.StringIO(decode_text(content, ".env"))):
        source = binding.original.string
        line = binding.original.line + source[: len(source) - len(source.lstrip())].count("\n")
        if binding.value is None and _BEGINS_OURS.match(source):
            if binding.error:
                raise _sets_nothing(line, source)
            bare.setdefault(binding.key or "", line)
        if binding.key is not None and binding.value is not None:
            # As in a shell, the last one of a name wins.
            found[binding.key] = Variable(
                name=binding.key,
                value=binding.value,
                origin=Origin(layer="dotenv", place=f".env:{line}", found=str(path)),
            )
    for name, line in bare.items():
        # `export NAME` beside NAME=value, and what Docker passes on from the environment, are set.
        is_set = name in found or environ.get(name, "").strip()
        if not is_set and name.startswith(("SLPROXY_", *VARIABLES)):
            raise _sets_nothing(line, name, name)
    yield from found.values()


def _sets_nothing(line: int, source: str, name: str = "") -> ConfigError:
    """Return the error, which names a setting at most: the line may hold a secret."""
    expected = f".env:{line}: expected NAME=value"
    if name in VARIABLES or name in META:
        return ConfigError(f"{expected}, got {name} alone", hint=f"set a value, as in {name}=…, or remove it")
    return ConfigError(expected, hint="close the quote, or quote the whole value" if "=" in source else "write the =")
