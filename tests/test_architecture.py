"""The structure: which area may import which, and what a decision may not touch.

An area imports only from areas above it, and only what their ``__init__`` exports. What decides has no clock, dice,
file, socket or event loop in it: a module is held to that unless it stands in ``EDGES``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import slproxy

PACKAGE = Path(slproxy.__file__).parent

# From the top: each may import those before it. `sandbox` is apart, and `__main__` is the door to cli.
AREAS = (
    *("errors", "untrusted", "operations", "config", "http", "sockets", "retry", "observe", "store", "pace", "auth"),
    *("upstream", "forward", "inspect", "server", "changes", "listeners", "own_pages", "access", "clock", "app", "cli"),
    "__main__",
)

# Areas of one file, all of which others may use.
FILES = {"errors", "untrusted", "operations", "changes", "listeners", "own_pages", "access", "clock", "app"}

# What has a clock, dice, a socket, a file or a loop in it. A path is a value: opening one is what counts.
TOUCHY = {
    "aiohttp",
    "asyncio",
    "contextvars",
    "fcntl",
    "filelock",
    "gc",
    "glob",
    "io",
    "keyring",
    "logging",
    "multidict",
    "os",
    "platformdirs",
    "random",
    "redis",
    "resource",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "tenacity",
    "termios",
    "threading",
    "time",
    "urllib.request",
    "uvloop",
    "webbrowser",
    "yarl",
}
OPENS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "stat", "lstat", "exists"}

# The edges; an area's name stands for all of it. Every other module decides, and touches nothing of the above.
EDGES = {
    "access",
    "app",
    "auth.callback_server",
    "auth.credentials",
    "auth.login",
    "auth.refresher",
    "auth.save_login",
    "auth.stored_login",
    "auth.token_events",
    "cli",
    "clock",
    "config.env_file",
    "config.files",
    "config.trust",
    "forward.body",
    "forward.buffered",
    "forward.forward",
    "inspect.feed",
    "inspect.har",
    "inspect.inspector",
    "inspect.pages",
    "inspect.static",
    "observe.access_log",
    "observe.audit",
    "observe.audit_file",
    "observe.background_writer",
    "observe.lines",
    "observe.logging_setup",
    "observe.request_ids",
    "observe.request_line",
    "observe.tracing.span_queue",
    "observe.tracing.start",
    "observe.tracing.tracing",
    "own_pages",
    "pace.pacer",
    "pace.replicas",
    "pace.shared",
    "retry.retrying",
    "server",
    "sockets",
    "store.cipher",
    "store.file",
    "store.file_lock",
    "store.keyring",
    "store.keys",
    "store.memory",
    "store.private_file",
    "store.redis",
    "store.redis_client",
    "store.system_keyring",
    "upstream",
}


def modules() -> list[str]:
    """Return every module of the proxy, less the sandbox and the packages' ``__init__``."""
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
    return [".".join(path.parts) for path in paths if path.parts[0] != "sandbox" and path.name != "__init__"]


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text("utf-8"))


def imported(module: ast.Module) -> list[tuple[str, str]]:
    """Return what a module imports, anywhere in it: the module's full name, and the name taken from it or nothing."""
    names: list[tuple[str, str]] = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [(node.module or "", alias.name) for alias in node.names]
    return names


def exported(area: str) -> set[str]:
    init = ast.parse((PACKAGE / area / "__init__.py").read_text("utf-8"))
    found = [node for node in init.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    return set(ast.literal_eval(found[0].value)) if found else set()


def touched(module: ast.Module) -> set[str]:
    """Return which of ``TOUCHY`` a module touches, and ``open`` where it opens a file."""
    names = {name for name, _ in imported(module)}
    found = {each for each in TOUCHY if any(name == each or name.startswith(f"{each}.") for name in names)}
    calls = [node.func for node in ast.walk(module) if isinstance(node, ast.Call)]
    if any((call.id if isinstance(call, ast.Name) else getattr(call, "attr", "")) in OPENS for call in calls):
        found.add("open")
    return found


def test_every_module_belongs_to_an_area() -> None:
    assert {module.split(".")[0] for module in modules()} == set(AREAS)


@pytest.mark.parametrize("module", modules())
def test_an_area_imports_only_from_areas_above(module: str) -> None:
    place = AREAS.index(module.split(".", maxsplit=1)[0])
    others = {
        (f"slproxy.{taken}" if name == "slproxy" and taken in AREAS else name).split(".")[1]
        for name, taken in imported(tree(module))
        if name.startswith("slproxy.") or (name == "slproxy" and taken)
    } - {"sandbox"}
    assert {other for other in others if AREAS.index(other) > place} == set()


@pytest.mark.parametrize("module", modules())
def test_of_another_area_only_what_it_exports_is_used(module: str) -> None:
    area = module.split(".", maxsplit=1)[0]
    taken = [(name, what) for name, what in imported(tree(module)) if name.startswith("slproxy.")]
    foreign = [(name, what) for name, what in taken if name.split(".")[1] not in {area, "sandbox", *FILES}]
    assert [each for each in foreign if each[0].count(".") > 1] == []
    assert [
        each for each in foreign if each[0].count(".") == 1 and each[1] not in exported(each[0].split(".")[1])
    ] == []


@pytest.mark.parametrize("module", modules())
def test_within_an_area_nothing_is_taken_from_its_own_init(module: str) -> None:
    area = module.split(".", maxsplit=1)[0]
    taken = {what for name, what in imported(tree(module)) if name == f"slproxy.{area}" and "." in module}
    assert {what for what in taken if f"{area}.{what}" not in modules()} == set()


def test_modules_import_each_other_in_no_circle() -> None:
    known = {f"slproxy.{module}" for module in modules()}
    graph = {f"slproxy.{module}": {name for name, _ in imported(tree(module)) if name in known} for module in modules()}
    while leaves := {module for module, others in graph.items() if not others & graph.keys()}:
        graph = {module: others for module, others in graph.items() if module not in leaves}
    assert graph == {}


@pytest.mark.parametrize("area", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_an_area_says_what_it_is(area: str) -> None:
    said = ast.get_docstring(ast.parse((PACKAGE / area / "__init__.py").read_text("utf-8"))) or ""
    assert said.partition("\n")[0].endswith("."), "one sentence"


@pytest.mark.parametrize("module", modules())
def test_what_decides_touches_no_edge(module: str) -> None:
    if not {module, module.split(".", maxsplit=1)[0]} & EDGES:
        assert touched(tree(module)) == set()


@pytest.mark.parametrize("edge", sorted(EDGES))
def test_what_may_touch_an_edge_does(edge: str) -> None:
    assert any(touched(tree(module)) for module in modules() if edge in (module, module.split(".")[0]))


@pytest.mark.parametrize(
    "line", ["import asyncio", "import time", "import random", "from pathlib import Path\nPath('x').open()"]
)
def test_an_edge_in_a_decision_would_be_seen(line: str) -> None:
    assert touched(ast.parse(line)) != set()


def test_nobody_but_cli_imports_the_sandbox() -> None:
    users = {module for module in modules() if any("sandbox" in name for name, _ in imported(tree(module)))}
    assert {module.split(".")[0] for module in users} == {"cli"}


def test_the_sandbox_imports_nothing_of_slproxy() -> None:
    for path in sorted((PACKAGE / "sandbox").rglob("*.py")):
        names = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        depth = len(path.relative_to(PACKAGE / "sandbox").parts)
        assert [node.module for node in names if node.level > depth] == [], path.name
        others = [node.module or "" for node in names if not node.level and (node.module or "").startswith("slproxy")]
        assert [name for name in others if not name.startswith("slproxy.sandbox")] == [], path.name


def aiohttp_names(module: str) -> set[str]:
    return {
        f"{name}.{what}".removesuffix(".") for name, what in imported(tree(module)) if name.split(".")[0] == "aiohttp"
    }


def test_nobody_uses_the_client_of_aiohttp_nor_the_inside_of_asyncio() -> None:
    client = re.compile(r"aiohttp(\.client\w*|\.connector|\.ClientRequest|\.ClientSession|\.TCPConnector|$)")
    inside = re.compile(r"\b(asyncio|ssl|uvloop)\.(\w+\.)*_[a-z]\w*|\basyncio\.(selector_events|sslproto)\b")
    for module in modules():
        assert [name for name in aiohttp_names(module) if client.fullmatch(name)] == [], module
        assert inside.search(ast.unparse(tree(module))) is None, module


def test_only_retrying_builds_loops_of_tenacity() -> None:
    users = {module: {what for name, what in imported(tree(module)) if name == "tenacity"} for module in modules()}
    assert [module for module, names in users.items() if "AsyncRetrying" in names] == ["retry.retrying"]


def test_nothing_mutable_stands_at_module_level() -> None:
    made = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    named = re.compile(r"_?[A-Z][A-Z0-9_]*|__all__")  # a constant by its name: nobody changes it
    found = [
        f"{module}:{node.lineno}"
        for module in modules()
        for node in tree(module).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, made)
        and not all(
            named.fullmatch(ast.unparse(target))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
    ]
    assert found == []


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path.name: lines for path, lines in lengths.items() if lines > 400} == {}
