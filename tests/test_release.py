"""A release: what .github/release_notes.py cuts from the changelog, and what it refuses."""

from __future__ import annotations

import re
import runpy

import pytest

import slproxy
from tests.support import ROOT

notes = runpy.run_path(str(ROOT / ".github" / "release_notes.py"))["notes"]
CHANGELOG = (
    "# Changelog\n\n## [1.1.0] - 2026-12-01\n\n### Added\n\n- B.\n\n## [1.0.0] - 2026-11-28\n\n### Added\n\n- A.\n"
)


@pytest.mark.parametrize(
    ("version", "part"),
    [("1.1.0", "### Added\n\n- B."), ("1.0.0", "### Added\n\n- A.")],
    ids=["the newest", "an old one"],
)
def test_the_part_of_a_version_is_cut_out(version: str, part: str) -> None:
    assert notes(f"v{version}", CHANGELOG, version) == part


@pytest.mark.parametrize(
    ("tag", "version"), [("v1.1.0", "1.1.1"), ("1.1.0", "1.1.0"), ("v2.0.0", "2.0.0"), ("v1", "1")]
)
def test_a_tag_of_another_version_or_of_none_is_refused(tag: str, version: str) -> None:
    with pytest.raises(SystemExit):
        notes(tag, CHANGELOG, version)


def test_the_changelog_has_its_newest_part_on_top_and_this_version() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]" or headings[0].startswith(f"[{slproxy.__version__}] - ")
    assert any(heading.startswith(f"[{slproxy.__version__}] - ") for heading in headings)


def test_every_action_of_the_release_is_pinned_by_its_hash() -> None:
    used = re.findall(r"uses: (\S+)(.*)", (ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert used
    assert all(
        re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) and re.fullmatch(r" # v[\d.]+", tag) for action, tag in used
    )
