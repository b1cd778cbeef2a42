"""Citations: each names a file in ``docs/`` and a heading, a trap or a case that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.docs import headings, page

DOCS = tuple(path.name for path in sorted((ROOT / "docs").glob("*.md")))
# What code and tests stand on.
CITED = {
    "agents.md",
    "contract.md",
    "data.md",
    "filesystems.md",
    "hazards.md",
    "inspector.md",
    "metrics.md",
    "salesloft.md",
    "service.md",
}
SEARCHED = ("slproxy", "tests", "benchmarks", "docs", "deploy")
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "config.example.toml",
    "proxy.py",
    "Makefile",
    "pyproject.toml",
)

# A comma behind a file begins what is cited in it, and a comma or "and" may join several; elsewhere prose goes on.
FILE = re.compile(r"\bdocs/([\w-]+\.md)")
# "T1 to T5" cites both ends.
JOINED = (", and ", " and ", " to ", ", ")

# How these were cited before they could be followed.
OLD = re.compile(
    r"salesloft-facts|the contract's|\bhazards?,? (?:trap )?[A-Z]?\d|contract, (?:section )?[\dA-Z]"
    r"|STYLE\.md|DESIGN\.md|\b[Ii]ssue \d|(?<![\w/])[\w.-]+#\d+"
)


def texts() -> Iterator[tuple[str, str]]:
    """Yield each file's path and text; a line that goes on in a comment or docstring is one with the line before."""
    here = Path(__file__)
    paths = [ROOT / name for name in PAGES]
    for folder in SEARCHED:
        paths += sorted(each for kind in ("py", "md", "yaml") for each in (ROOT / folder).rglob(f"*.{kind}"))
    for path in paths:
        if path != here and "node_modules" not in path.parts:
            yield str(path.relative_to(ROOT)), re.sub(r"\n[ \t]*(?:#[ \t]*)?", " ", path.read_text("utf-8"))


def anchors(doc: str) -> set[str]:
    """Return what can be cited in a file: its headings, and of the hazards each trap and case."""
    text, found = page(doc), set(headings(doc))
    if doc == "hazards.md":
        found |= {f"trap {number}" for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)}
        found |= set(re.findall(r"^\| ([A-Z]\d+) \|", text, re.MULTILINE))
    return found


def cited(text: str, known: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Yield each file that is cited and what is cited in it: "" for the file itself, "?…" for what is not there."""
    for mention in FILE.finditer(text):
        doc, rest = mention[1], text[mention.end() :]
        if doc not in known:
            yield doc, f"?{doc}"
            continue
        if not re.match(r", (?!and |docs/)", rest):
            yield doc, ""
            continue
        rest, first = rest[2:], True
        while True:
            longest = max((each for each in known[doc] if re.match(rf"{re.escape(each)}\b", rest)), key=len, default="")
            if not longest:
                if first:
                    yield doc, f"?{rest[:40]}"
                break
            yield doc, longest
            first, rest = False, rest[len(longest) :]
            joint = next((each for each in JOINED if rest.startswith(each)), None)
            if joint is None:
                break
            rest = rest[len(joint) :]


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    return {doc: anchors(doc) for doc in DOCS}


def test_a_heading_is_cited_by_its_name_alone_so_no_name_is_used_twice() -> None:
    for doc in DOCS:
        assert sorted(headings(doc)) == sorted(set(headings(doc))), doc


def test_every_citation_names_a_file_and_what_is_in_it(known: dict[str, set[str]]) -> None:
    wrong = [
        f"{path}: docs/{doc}, {what[1:]}"
        for path, text in texts()
        for doc, what in cited(text, known)
        if what[:1] == "?"
    ]
    assert wrong == []


def test_citations_are_found(known: dict[str, set[str]]) -> None:
    found = [(doc, what) for _, text in texts() for doc, what in cited(text, known) if what]
    assert len(found) > 70
    assert {doc for doc, _ in found} >= CITED


def test_nothing_is_cited_in_a_form_that_cannot_be_followed() -> None:
    assert [f"{path}: {old[0]}" for path, text in texts() for old in OLD.finditer(text)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(docs/hazards.md, trap 15).", [("hazards.md", "trap 15")]),
        (
            "docs/contract.md, Strip, Inject and Answer; more",
            [("contract.md", name) for name in ("Strip", "Inject", "Answer")],
        ),
        ("docs/hazards.md, T1 to T5, H3", [("hazards.md", name) for name in ("T1", "T5", "H3")]),
        ("docs/contract.md, Check, says", [("contract.md", "Check")]),
        ("held to docs/contract.md as a process", [("contract.md", "")]),
    ],
)
def test_a_citation_is_read_to_its_end(known: dict[str, set[str]], text: str, found: list[tuple[str, str]]) -> None:
    assert list(cited(text, known)) == found


@pytest.mark.parametrize("text", ["docs/hazards.md, trap 99", "docs/contract.md, Section 4", "docs/nowhere.md, Check"])
def test_a_citation_of_what_is_not_there_would_be_seen(known: dict[str, set[str]], text: str) -> None:
    assert [what[0] for _, what in cited(text, known)] == ["?"]


@pytest.mark.parametrize(
    "text", ["salesloft-facts, API", "the contract's Cure", "hazards, trap 15", "hazard T5", "issue 4", "airbyte#13660"]
)
def test_an_old_form_would_be_seen(text: str) -> None:
    assert OLD.search(text)
