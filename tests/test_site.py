"""The built site: each link leads to a page and a place that are there, and reading it asks nobody else.

``make docs`` builds it and runs them.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support import ROOT
from tests.support.docs import pages

pytestmark = pytest.mark.heavy

# What a browser fetches by itself, unlike what a person follows.
FETCHED = {"script", "img", "iframe", "source", "video"}
FETCHED_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "modulepreload"}


class Page(HTMLParser):
    """What a page links to, what it fetches, and where in it a link may lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        where = given.get("href", given.get("src"))
        if where is None:
            return
        self.links.add(where)
        if tag in FETCHED or (tag == "link" and FETCHED_RELATIONS & set(given.get("rel", "").split())):
            self.fetched.add(where)


@pytest.fixture(scope="module")
def site(pytestconfig: pytest.Config) -> Path:
    path = pytestconfig.getoption("--site")
    if path is None:
        pytest.skip("with --site, as make docs has it")
    return Path(path).resolve()


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}


def broken(path: Path, page: Page, built: dict[Path, Page], site: Path) -> list[str]:
    """Return the links of a page that lead to no file of the site, or to no place in it."""
    found = []
    for link in page.links:
        url = urlsplit(link)
        if url.scheme == "https":
            continue
        base = site if url.path.startswith("/") else path.parent
        target = (base / unquote(url.path).lstrip("/")).resolve() if url.path else path
        target = target / "index.html" if target.is_dir() else target
        there = target.is_relative_to(site) and target.is_file() and not url.scheme
        if not there or (url.fragment and target in built and unquote(url.fragment) not in built[target].ids):
            found.append(link)
    return found


def test_each_page_is_there(built: dict[Path, Page], site: Path) -> None:
    made = {path.relative_to(ROOT).with_suffix(".html") for path in pages()}
    names = {path.parent / "index.html" if path.name == "README.html" else path for path in made}
    assert {path.relative_to(site) for path in built} == {*names, Path("404.html")}


def test_each_link_leads_to_a_place_that_is_there(built: dict[Path, Page], site: Path) -> None:
    assert sum(len(page.links) for page in built.values()) > 500
    assert {str(path): wrong for path, page in built.items() if (wrong := broken(path, page, built, site))} == {}


def test_a_link_that_leads_nowhere_would_be_seen(built: dict[Path, Page], site: Path) -> None:
    index = site / "index.html"
    wrong = ["nowhere.html", "#nowhere", "docs/ssh.html#nowhere", "../x", "http://example.com/"]
    page = Page("".join(f'<a href="{link}">x</a>' for link in ["docs/ssh.html", *wrong]))
    assert sorted(broken(index, page, built, site)) == sorted(wrong)


def test_reading_it_asks_nobody_else(built: dict[Path, Page], site: Path) -> None:
    fetched = {link for page in built.values() for link in page.fetched}
    fetched |= {url for path in site.rglob("*.css") for url in re.findall(r"url\(([^)]*)\)", path.read_text("utf-8"))}
    assert len(fetched) > 3
    assert [link for link in fetched if re.match(r"[\"']?(https?:)?//", link)] == []


def test_its_search_knows_each_page(site: Path) -> None:
    text = (site / "search.json").read_text("utf-8")
    json.loads(text)
    assert [path.stem for path in (site / "docs").glob("*.html") if f"docs/{path.name}" not in text] == []
