"""Software bill of materials of the environment that runs this: CycloneDX 1.6, as JSON on standard output.

The build of the image writes it to ``/opt/slproxy/sbom.cdx.json``. What the base image holds is not in it: its digest
names that.
"""

from __future__ import annotations

import importlib.metadata
import json
import re


def component(found: importlib.metadata.Distribution) -> dict[str, object]:
    """Return what is told of a package: the same at each build."""
    name = re.sub(r"[-_.]+", "-", found.name).lower()
    told = found.metadata
    expression, text = told.get("License-Expression"), told.get("License") or ""
    # Some have the whole text of their licence there.
    named = [{"license": {"name": text}}] if 0 < len(text) < 80 else []
    licences = [{"expression": expression}] if expression else named
    return {
        "type": "library",
        "bom-ref": (purl := f"pkg:pypi/{name}@{found.version}"),
        "name": name,
        "version": found.version,
        "purl": purl,
        **({"licenses": licences} if licences else {}),
    }


def sbom() -> dict[str, object]:
    """Return the document."""
    components = sorted(
        (component(each) for each in importlib.metadata.distributions()), key=lambda each: str(each["name"])
    )
    (itself,) = (each for each in components if each["name"] == "slproxy")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": itself | {"type": "application"}},
        "components": [each for each in components if each is not itself],
    }


if __name__ == "__main__":
    print(json.dumps(sbom(), indent=1))
