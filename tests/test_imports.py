"""Who may import whom: the map of ``slproxy/__init__.py`` and STYLE.md's house, held by walking the imports.

A module imports only from lines above its own; on a line, modules are siblings and do not import each other, unless an
arrow stands between them: then the right one may import the left one.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import slproxy

PACKAGE = Path(slproxy.__file__).parent


def drawn() -> list[list[list[str]]]:
    """Return the map as the package's docstring draws it: lines of groups of modules, less the sandbox, which is apart.

    A module may import from the groups before its own, be they on its line, to the left of an arrow, or above.
    """
    rows = [
        re.fullmatch(r"    (\S+(?: (?:→ )?\S+)*)(?: {2,}.*)?", line) for line in (slproxy.__doc__ or "").splitlines()
    ]
    lines = [[group.split() for group in row[1].split(" → ")] for row in rows if row is not None]
    return [line for line in lines if line != [["sandbox"]]]


# `__main__` is the door to cli, and stands below everything.
GROUPS = [*(group for line in drawn() for group in line), ["__main__"]]
ORDER = {module: place for place, group in enumerate(GROUPS) for module in group}

DECISIONS = [
    "headers",
    "cors",
    "framing",
    "paths",
    "policy",
    "retry",
    "oauth",
    "journal",
    "errors",
    "settings",
    "values",
]
# What has a clock, a socket, a file or a loop in it. `time` only converts where a row below allows it.
EDGES = {
    "aiohttp",
    "asyncio",
    "contextvars",
    "filelock",
    "io",
    "logging",
    "multidict",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "yarl",
}
# The honest exceptions, each with its reason.
ALLOWED = {
    # It formats lines (pure), and owns the stream that they are written to, once a moment.
    "journal": {"asyncio", "logging", "sys", "time"},
    # A path is a value here: nothing is opened.
    "settings": {"pathlib"},
    # A setting that names a file is resolved, and `~` in it expanded.
    "values": {"pathlib"},
}


def modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imported(path: Path, package: str = "slproxy") -> set[str]:
    """Return the full names of the modules that a file imports anywhere in it, also within functions.

    ``from slproxy import headers`` names a module, ``from slproxy.headers import Fields`` another way; both come out as
    ``slproxy.headers``. A bare ``import slproxy`` is for the version and comes out as ``slproxy``.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names.update(f"{origin}.{alias.name}" if origin == "slproxy" else origin for alias in node.names)
    return names


def own(module: str) -> set[str]:
    """Return the modules of slproxy that a module imports."""
    return {name.split(".")[1] for name in imported(PACKAGE / f"{module}.py") if name.startswith("slproxy.")}


def foreign(module: str) -> set[str]:
    """Return the top-level names of everything else that a module imports."""
    return {name.split(".")[0] for name in imported(PACKAGE / f"{module}.py")} - {"slproxy", "__future__"}


def test_every_module_has_one_place_on_the_map() -> None:
    assert sorted(module for group in GROUPS for module in group) == modules()


def test_the_map_begins_with_what_knows_nothing_of_the_rest_and_ends_with_who_talks_to_a_person() -> None:
    assert GROUPS[0] == ["errors", "settings", "paths"]
    assert GROUPS[-2:] == [["cli"], ["__main__"]]


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_above(module: str) -> None:
    assert {name for name in own(module) - {"sandbox"} if ORDER[name] >= ORDER[module]} == set()


def test_nobody_but_cli_imports_the_sandbox() -> None:
    assert [module for module in modules() if "sandbox" in own(module)] == ["cli"]


def test_the_sandbox_imports_nothing_of_slproxy() -> None:
    for path in sorted((PACKAGE / "sandbox").rglob("*.py")):
        package = ".".join(["slproxy", *path.relative_to(PACKAGE).parent.parts])
        others = {name for name in imported(path, package) if name.split(".")[0] == "slproxy"}
        assert {name for name in others if not name.startswith("slproxy.sandbox")} == set(), path.name


@pytest.mark.parametrize("module", DECISIONS)
def test_a_decision_touches_no_edge(module: str) -> None:
    assert foreign(module) & EDGES == ALLOWED.get(module, set())


def names_of_aiohttp(module: str) -> set[str]:
    """Return what a module takes from aiohttp, such as ``web`` or ``ClientSession``."""
    taken: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aiohttp":
            taken.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "aiohttp":
            taken.add(node.attr)
    return taken


@pytest.mark.parametrize("module", [module for module in modules() if module != "upstream"])
def test_only_upstream_knows_the_client_of_aiohttp(module: str) -> None:
    # An exception is no client: aiohttp's server raises ClientError where the body of a request breaks off.
    known = {name for name in names_of_aiohttp(module) if "Client" in name or "Connector" in name or name == "request"}
    assert known == ({"ClientError"} if module == "server" else set())
    assert {name for name in imported(PACKAGE / f"{module}.py") if name.startswith("aiohttp.client")} == set()
    assert {name for name in imported(PACKAGE / f"{module}.py") if name.startswith("aiohttp.connector")} == set()


def test_aiohttp_is_known_at_the_edges_alone() -> None:
    assert [module for module in modules() if "aiohttp" in foreign(module)] == [
        "app",
        "connection",
        "login",
        "server",
        "upstream",
    ]
    assert {"TCPConnector", "ClientRequest"} <= names_of_aiohttp("upstream"), "so that the rule above can fail"


def test_only_retry_builds_loops_of_tenacity() -> None:
    users = {
        module: {
            alias.name
            for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text()))
            if isinstance(node, ast.ImportFrom) and node.module == "tenacity"
            for alias in node.names
        }
        for module in modules()
    }
    assert {module: names for module, names in users.items() if names - {"RetryCallState"}} == {
        "retry": {"AsyncRetrying", "RetryCallState"}
    }


def test_nothing_mutable_stands_at_module_level() -> None:
    made = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    named = re.compile(r"_?[A-Z][A-Z0-9_]*|__all__")  # a constant by its name: nobody changes it
    found = [
        f"{module}.py:{node.lineno}"
        for module in modules()
        for node in ast.parse((PACKAGE / f"{module}.py").read_text()).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, made)
        and not all(
            named.fullmatch(ast.unparse(target))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
    ]
    assert found == []
