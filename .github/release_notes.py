"""Prints what CHANGELOG.md says of a version; refuses a tag that is not the version of the package.

``python .github/release_notes.py v1.2.3``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def notes(tag: str, changelog: str, version: str) -> str:
    """Return the part of a changelog on a version. Raises SystemExit where there is none, or ``tag`` is not its tag."""
    if tag != f"v{version}":
        raise SystemExit(f"The tag {tag} is not v{version}, which slproxy/__init__.py says.")
    part = re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if part is None or not part[1].strip():
        raise SystemExit(f"CHANGELOG.md has no part '## [{version}] - YYYY-MM-DD' with something in it.")
    return part[1].strip()


if __name__ == "__main__":
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "slproxy/__init__.py").read_text("utf-8"), re.MULTILINE)
    assert found is not None, "the package says its version"
    print(notes(sys.argv[1], (ROOT / "CHANGELOG.md").read_text("utf-8"), found[1]))
