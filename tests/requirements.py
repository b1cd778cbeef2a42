"""Print what pyproject.toml requires, for pip: of ``slproxy`` itself, of an extra, or of a dependency group.

``--lowest`` turns each lower bound into the version to install: ``aiohttp>=3.14.5`` becomes ``aiohttp==3.14.5``. It is
what ``pip install --group`` does, which needs a newer pip than Python 3.11 brings.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path


def requirements(names: list[str], *, lowest: bool) -> list[str]:
    """Return the requirements behind the names, in the order of the file."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))
    sources = {
        "slproxy": project["project"]["dependencies"],
        "build": project["build-system"]["requires"],
        **project["project"]["optional-dependencies"],
        **project["dependency-groups"],
    }
    found: list[str] = [requirement for name in names for requirement in sources[name]]
    return [requirement.split(",")[0].replace(">=", "==") for requirement in found] if lowest else found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--lowest", action="store_true")
    args = parser.parse_args()
    print(" ".join(requirements(args.names, lowest=args.lowest)))
