"""The pages in ``docs/``: their headings and tables."""

from __future__ import annotations

import re

from tests.support import ROOT


def page(name: str) -> str:
    """Return a page's text."""
    return (ROOT / "docs" / name).read_text("utf-8")


def headings(name: str) -> list[str]:
    """Return a page's headings below its title, in order."""
    return re.findall(r"^##+ (.+)$", page(name), re.MULTILINE)


def section(name: str, heading: str) -> str:
    """Return what stands below a heading, up to the next one."""
    return page(name).split(f"\n## {heading}\n")[1].split("\n## ")[0]


def table(name: str, heading: str) -> list[list[str]]:
    """Return the rows of a section's table, less its head."""
    rows = [line for line in section(name, heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def blocks(name: str, heading: str, language: str) -> list[str]:
    """Return a section's code blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(name, heading), re.MULTILINE | re.DOTALL)
