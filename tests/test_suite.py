"""The tests themselves: what they may import from each other, and that they look at the program from outside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(path for path in TESTS.rglob("*.py") if "node_modules" not in path.parts)

# What has no public name: by file, with the reason.
PRIVATE = {
    # argparse tells nobody which options a parser has.
    "attacks/test_secrets.py": {"_actions", "_SubParsersAction"},
    # A secret that shows itself nowhere is compared with what it holds.
    "config/test_secret.py": {"_value"},
    # An end as the interpreter's, without its clean-up; and one in the middle of a write.
    "support/forkserver.py": {"_shutdown", "_run_exitfuncs", "_exit"},
    "support/token_writers.py": {"_exit"},
}
# Public for all that: its underscore keeps it from the names of the fields.
NAMED_TUPLES = {"_replace", "_asdict", "_fields"}


def foreign(path: Path) -> Iterator[str]:
    """Yield what a file takes from another file of tests."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (module for module in modules if module.startswith("tests.") and ".test_" in module)


def private(tree: ast.Module) -> Iterator[str]:
    """Yield the private names that are reached for on anything but an object's own self."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        ):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slproxy"):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if name.startswith("_") and not name.startswith("__"))


def test_what_two_files_share_stands_in_support() -> None:
    assert {str(path.relative_to(TESTS)): [*foreign(path)] for path in FILES if [*foreign(path)]} == {}


def test_no_test_touches_private_state() -> None:
    found = {path.relative_to(TESTS).as_posix(): {*private(ast.parse(path.read_text("utf-8")))} for path in FILES}
    touched = {file: names - NAMED_TUPLES for file, names in found.items() if names - NAMED_TUPLES}
    assert touched == PRIVATE


@pytest.mark.parametrize("line", ["app.upstream._lines", "self.app._x", "from slproxy.cli.settings import _FLAGS"])
def test_private_state_would_be_seen(line: str) -> None:
    assert [*private(ast.parse(line))]
