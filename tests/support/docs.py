"""The pages: README, those in ``docs/`` and beside them; their headings, tables, links and examples."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support import ROOT

# A line that begins with a prompt is a command; what follows is what it prints.
PROMPT = re.compile(r"^(?:\w+@\w+)?\$ ", re.MULTILINE)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+(?:\n[^`\n]+)?`")
_LINK = re.compile(r"\]\(([^()\s]+)\)|^\[[^\]]+\]: (\S+)|<(https?://[^>\s]+)>", re.MULTILINE)


def pages() -> list[Path]:
    """Return each page that a reader may come to."""
    return [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *sorted((ROOT / "docs").glob("*.md")),
        *(ROOT / name / "README.md" for name in ("deploy", "benchmarks")),
    ]


def page(name: str) -> str:
    """Return the text of a page in ``docs/``."""
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


def links(text: str) -> list[str]:
    """Return where a page's links lead, as they are written; a link in an example is none."""
    return [next(filter(None, found.groups())) for found in _LINK.finditer(_CODE.sub("", _FENCE.sub("", text)))]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them: https://github.com/Flet/github-slugger."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        found.append(slug)
    return {f"{slug}-{before}" if (before := found[:n].count(slug)) else slug for n, slug in enumerate(found)}


class Example(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    def commands(self) -> Iterator[tuple[str, str]]:
        """Yield each command of a console, and what it prints there."""
        for each in PROMPT.split(self.text)[1:]:
            command, _, printed = each.partition("\n")
            yield command, printed.strip("\n")


def examples() -> list[Example]:
    """Return the examples of all pages."""
    return [Example(path, *found.groups()) for path in pages() for found in _FENCE.finditer(path.read_text("utf-8"))]


class Words(NamedTuple):
    """A simple command of a shell's command line: what is set for it, and its words."""

    variables: dict[str, str]
    words: list[str]


def simple_commands(line: str) -> Iterator[Words]:
    """Yield the simple commands of a command line, less their redirections; those that ``sudo`` and ``env`` run too."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    tokens = [*lexer, ";"]
    words: list[str] = []
    while tokens:
        token = tokens.pop(0)
        if token in ("<", ">", ">>"):
            tokens.pop(0)
        elif re.fullmatch(r"[;&|()]+", token):
            if words:
                yield _words(words)
            words = []
        else:
            words.append(token)


def _words(words: list[str]) -> Words:
    variables: dict[str, str] = {}
    while words:
        name, is_set, value = words[0].partition("=")
        if is_set and name.isidentifier():
            variables[name] = value
        elif words[:2] == ["sudo", "-u"]:
            del words[:2]
        elif words[0] not in ("env", "export"):
            break
        del words[0]
    return Words(variables, words)


def inline_code(text: str) -> list[str]:
    """Return what stands in backticks, each in one line."""
    return [found[0].strip("`").replace("\n", " ") for found in _CODE.finditer(_FENCE.sub("", text))]
