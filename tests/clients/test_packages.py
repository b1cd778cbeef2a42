"""The packages: built twice they are the same, and they install without a network, by pip, pipx and uv.

``make dist`` runs them; a plain run of the tests installs nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import slproxy
from tests.support import ROOT
from tests.support.programs import environment

pytestmark = pytest.mark.heavy


@pytest.fixture(autouse=True, scope="module")
def wanted(pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--packages"):
        pytest.skip("with --packages, as make dist has it")


WHEEL, SDIST = f"slproxy-{slproxy.__version__}-py3-none-any.whl", f"slproxy-{slproxy.__version__}.tar.gz"


def files_of_the_checkout() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def built(folder: Path, umask: int) -> Path:
    """Build both packages from a copy of the checkout, as files of another time and mode."""
    source, packages = folder / "source", folder / "packages"
    for name in files_of_the_checkout():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(packages)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, umask=umask, env={"PATH": os.environ["PATH"]})
    return packages


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("first"), 0o022)


def test_built_twice_they_are_the_same(packages: Path, tmp_path: Path) -> None:
    again = built(tmp_path, 0o077)
    assert {each.name for each in packages.iterdir()} == {WHEEL, SDIST}
    for name in (WHEEL, SDIST):
        one, other = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (packages, again))
        assert one == other, name


def test_the_wheel_has_what_the_package_has_and_nothing_else(packages: Path) -> None:
    names = {each for each in zipfile.ZipFile(packages / WHEEL).namelist() if ".dist-info/" not in each}
    ours = {each for each in files_of_the_checkout() if each.startswith("slproxy/")}
    assert {each for each in names if each.startswith("slproxy/")} == ours
    assert [each.partition("/data/")[2] for each in names - ours] == ["share/man/man1/slproxy.1"]
    assert {"slproxy/py.typed", "slproxy/cli/text/SKILL.md", "slproxy/inspect/page/index.html"} <= names


def test_the_sdist_builds_the_same_wheel(packages: Path, tmp_path: Path) -> None:
    with tarfile.open(packages / SDIST) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / SDIST.removesuffix(".tar.gz")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    assert (tmp_path / WHEEL).read_bytes() == (packages / WHEEL).read_bytes()


# Installers


@pytest.fixture(scope="module")
def wheelhouse(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and all that it needs."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    fetched = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--only-binary",
            ":all:",
            "-d",
            folder,
            packages / WHEEL,
            "pip",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"there is no index to fetch dependencies from: {fetched.stderr.splitlines()[-1:]}")
    return folder


def alone(home: Path) -> dict[str, str]:
    """Return an environment without this checkout, in which other programs' warnings are no errors."""
    return {name: value for name, value in environment(home).items() if not name.startswith("PYTHON")}


def installs(tmp_path: Path, *command: str | Path, **more: str) -> None:
    """Run an installer, which reaches no index."""
    env = {**alone(tmp_path), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", **more}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def works(slproxy_path: Path, tmp_path: Path) -> None:
    """Hold that what was installed runs, by itself: from an empty folder, and not by this checkout."""
    ask = 'curl -sf -H "X-Slproxy-Key: $SLPROXY_KEY" $SLPROXY_URL/v2/me'
    done = subprocess.run(
        [slproxy_path, "run", "--sandbox", "--", "sh", "-c", ask],
        cwd=tmp_path,
        env=alone(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Jane Smith" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("installer", ["pip", "pipx", "uv"])
def test_it_installs_offline_and_runs(wheelhouse: Path, tmp_path: Path, installer: str) -> None:
    wheel, venv = wheelhouse / WHEEL, tmp_path / "venv"
    if installer == "pip":
        installs(tmp_path, sys.executable, "-m", "venv", venv)
        installs(tmp_path, venv / "bin/pip", "install", "-q", "--find-links", wheelhouse, wheel)
        works(venv / "bin/slproxy", tmp_path)
        return
    if importlib.util.find_spec(installer) is None:
        pytest.skip(f"there is no {installer}")
    program = [sys.executable, "-m", installer]
    if installer == "pipx":
        folders = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
        installs(
            tmp_path, *program, "install", "--backend", "pip", f"--pip-args=--find-links={wheelhouse}", wheel, **folders
        )
    else:
        folders = {"UV_TOOL_DIR": str(tmp_path / "home"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
        where = ("--offline", "--no-index", "--no-config", "--find-links", wheelhouse, "--python", sys.executable)
        installs(tmp_path, *program, "tool", "install", *where, wheel, **folders)
    works(tmp_path / "bin/slproxy", tmp_path)
