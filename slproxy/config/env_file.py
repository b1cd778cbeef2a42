"""Variables in ``.env``, each with its line."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from dotenv.parser import parse_stream

from slproxy.config.files import decode_text, read
from slproxy.config.origin import Origin
from slproxy.config.variables import Variable
from slproxy.errors import ConfigError


def from_dotenv(cwd: Path) -> Iterator[Variable]:
    """Yield the variables of ``.env``; a line of another program's that does not parse is that program's affair."""
    path = cwd / ".env"
    # A folder of this name is somebody's virtual environment.
    content = None if path.is_dir() else read(path, "the file of environment variables")
    if content is None:
        return
    found: dict[str, Variable] = {}
    # dotenv_values, which stands on this parser, neither gives the lines nor says which one it could not read.
    for binding in parse_stream(io.StringIO(decode_text(content, ".env"))):
        source = binding.original.string
        line = binding.original.line + source[: len(source) - len(source.lstrip())].count("\n")
        if binding.error and re.match(r"\s*(export\s+)?(SLPROXY|SALESLOFT)_", source):
            raise ConfigError(f".env:{line}: expected NAME=value", hint="close the quote, or quote the whole value")
        if binding.key is not None and binding.value is not None:
            # As a shell would have it, the last one of a name counts.
            found[binding.key] = Variable(
                name=binding.key, value=binding.value, origin=Origin(layer="dotenv", place=f".env:{line}")
            )
    yield from found.values()
