"""What decides in the inspector's page: plain modules under Node's own test runner, and the vendored library."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.support import ROOT, node

PAGE = ROOT / "slproxy" / "inspect" / "page"
MODULES = Path(__file__).parent / "page"
VENDORED = PAGE / "vendor" / "htm-preact-standalone.module.js"
# Of preact/standalone.module.js in https://registry.npmjs.org/htm/-/htm-3.1.1.tgz
CHECKSUM = "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7"


async def test_the_modules_that_decide_do_as_their_tests_say(tmp_path: Path) -> None:
    node.present()
    files = [path.as_uri() for path in sorted(MODULES.glob("*.mjs")) if path.name != "commands.mjs"]
    assert len(files) >= 6
    code = ";".join(f"await import({json.dumps(file)})" for file in files)
    returned, out, err = await node.run("node", "--input-type=module", "-e", code, home=tmp_path)
    assert returned == 0, out + err
    assert int(re.findall(r"pass (\d+)", out)[-1]) > 100


def test_the_library_is_the_one_that_its_authors_published() -> None:
    assert hashlib.sha256(VENDORED.read_bytes()).hexdigest() == CHECKSUM
    licence = (PAGE / "vendor" / "LICENSE").read_text("utf-8")
    assert "htm 3.1.1" in licence
    assert "The MIT License" in licence
    assert "Apache License" in licence


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.js")), ids=lambda path: path.name)
def test_no_module_makes_markup_or_code_of_text(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|\bFunction\(|srcdoc", text) is None
    assert re.search(r"https?://", text) is None


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    text = (PAGE / "index.html").read_text("utf-8")
    assert re.findall(r"<script[^>]*>", text) == ['<script type="module" src="inspector/app.js">']
    assert re.search(r"<style|style=|\son\w+=", text) is None
