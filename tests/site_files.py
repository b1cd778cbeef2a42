"""Copy the pages into a folder, and the files that they link to: what the site is built of (``make docs``).

The folder is as the checkout, so that a link is right in both; what no page names, such as a secret in
``deploy/secrets``, is not in it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.support import ROOT
from tests.support.docs import links, pages


def files() -> set[Path]:
    """Return the pages, and what they link to."""
    found = {*pages(), ROOT / "docs" / "site.css"}
    for path in pages():
        local = [urlsplit(link).path for link in links(path.read_text("utf-8")) if not urlsplit(link).scheme]
        found |= {(path.parent / each).resolve() for each in local if each}
    return {path for path in found if path.is_file()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    for path in files():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
