"""The image without a container engine.

The very commands of the Dockerfile build a fresh environment below a folder that stands for the image's root, and what
is in it is started with the image's environment as an unprivileged user. Where the kernel lets root make a mount
namespace, that is under a read-only root file system and without any capability, as ``docker run --read-only --cap-drop
ALL`` has it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.deployment import BUILD, CLIENT, IMAGE, STATE, USER
from tests.support.waiting import PATIENCE

# pip's own words for "there was no index to ask".
NO_INDEX = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyError")
BUILDING = 120.0
# Both writable places are mounted over themselves first, so that they stay writable when the root no longer is.
CONFINE = """
mount --bind "$1" "$1" && mount --bind "$2" "$2" && mount -o remount,bind,ro / && shift 2 &&
exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


@dataclass
class Imitation:
    """A folder that stands for the root of the image: the Dockerfile's commands were run below it."""

    root: Path
    # What makes an unprivileged process; empty where the tests' own user is one.
    confinement: list[str] = field(default_factory=list)

    def inside(self, text: str) -> str:
        """Return the text with each path of the image as the path that stands for it here."""
        return re.sub(r"(?<![\w./-])/(opt|src|etc|var/lib|run/secrets|tmp)(?![\w-])", rf"{self.root}/\1", text)

    @property
    def read_only(self) -> bool:
        return self.confinement[:1] == ["unshare"]

    def environment(self, more: Mapping[str, str], port: int) -> dict[str, str]:
        """Return what a container gets: the image's variables and ``more`` of them."""
        variables = {name: self.inside(value) for name, value in {**IMAGE.environment, **more}.items()}
        path = variables["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
        # Docker's HOME for a user without a name is the root; TMPDIR stands for the tmpfs that is mounted on /tmp.
        return {
            **variables,
            **libraries(self.root),
            "PATH": path,
            "HOME": "/",
            "TMPDIR": f"{self.root}/tmp",
            "SLPROXY_LISTEN__PORT": str(port),
        }

    async def start(
        self, *command: str, env: Mapping[str, str], stdin: bytes | None = None
    ) -> asyncio.subprocess.Process:
        """Start a command in the image's working folder."""
        program = shutil.which(command[0], path=env["PATH"]) or command[0]
        return await asyncio.create_subprocess_exec(
            *self.confinement,
            program,
            *command[1:],
            cwd=self.inside(IMAGE.one("WORKDIR")),
            env=env,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *command: str, env: Mapping[str, str]) -> tuple[int, str]:
        """Run a command to its end; return exit code and what it said."""
        process = await self.start(*command, env=env)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, (out + err).decode()

    def client(self, curlrc: Path) -> list[str]:
        """Return the command of the client of compose.yaml; its curl finds ``curlrc`` by HOME."""
        return [*CLIENT["entrypoint"], *(self.inside(word) for word in CLIENT["command"])]

    def secret(self, path: str, value: str) -> None:
        """Mount a secret: readable to the group of the image's user, as Kubernetes and Compose have it."""
        place = Path(self.inside(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_text(value + "\n")
        place.chmod(0o440)
        if os.geteuid() == 0:
            os.chown(place, 0, USER)

    def mode(self, path: str) -> int:
        return Path(self.inside(path)).stat().st_mode & 0o777

    def files(self) -> dict[str, tuple[int, int]]:
        """Return all that is below the root but the state, with its size and time."""
        state = Path(self.inside(STATE))
        return {
            str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in self.root.rglob("*")
            if path != state and state not in path.parents
        }


def confinement(root: Path) -> list[str]:
    """Return the command that makes what follows it unprivileged, and the root read-only if the kernel allows that."""
    if os.geteuid() != 0:
        return []
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    python = f"{root}/opt/slproxy/bin/python"
    confine = ["unshare", "--mount", "sh", "-c", CONFINE, "sh", f"{root}{STATE}", f"{root}/tmp"]
    for command in (confine, drop):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, python, "-c", ""], capture_output=True, check=False).returncode == 0
        ):
            return command
    pytest.skip("this Python cannot be run as another user here")


def python_for(root: Path) -> Path:
    """Return a folder with a ``python`` that any user may run, as the one of the base image; it brings pip.

    Without it the image's user would be refused a Python that lies in somebody's home folder, or get parts of another.
    """
    base, library = Path(getattr(sys, "_base_executable", sys.executable)).resolve(), Path(os.__file__).parent
    if os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for path in (base, library) for folder in path.parents):
        return Path(sys.executable).parent
    copy = root / "usr" / "local"
    (copy / "bin").mkdir(parents=True)
    shutil.copy2(base, copy / "bin" / base.name)
    (copy / "bin" / "python").symlink_to(base.name)
    unused = shutil.ignore_patterns("test", "site-packages", "dist-packages", "config-*")
    shutil.copytree(library, copy / "lib" / library.name, symlinks=True, ignore=unused)
    for shared in library.parent.glob("libpython3*.so*"):
        shutil.copy2(shared, copy / "lib", follow_symlinks=False)
    return copy / "bin"


def libraries(root: Path) -> dict[str, str]:
    """Return what the loader needs to find the copied Python's own library; the base image has that in its cache."""
    return {"LD_LIBRARY_PATH": f"{root}/usr/local/lib"} if (root / "usr").exists() else {}


def build(root: Path) -> None:
    """Do what ``docker build`` does, below ``root``; skip where there is no package index."""
    pip = importlib.util.find_spec("pip")
    if pip is None or pip.origin is None:
        pytest.skip("the Python that runs the tests has no pip")
    built = Imitation(root)
    for folder in ("src", "opt", "etc", "var/lib", "run/secrets", "tmp"):
        (root / folder).mkdir(parents=True)
    source = root / "src"
    for *names, target in (each.split() for each in BUILD.all("COPY")):
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                shutil.copy(ROOT / name, source / target)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    python = python_for(root)
    variables |= {"PATH": f"{python}:{os.environ['PATH']}", "PIP_RETRIES": "1", **libraries(root)}
    if python.is_relative_to(root):
        library = python.parent / "lib" / Path(os.__file__).parent.name
        shutil.copytree(Path(pip.origin).parent, library / "site-packages" / "pip")
    commands = [*BUILD.all("RUN"), *IMAGE.all("RUN")]
    if os.geteuid() != 0:
        # Who is not root already is whom the folder has to belong to.
        commands = [command.replace(f"-o {USER} -g {USER} ", "") for command in commands]
    for command in commands:
        done = subprocess.run(
            ["sh", "-e", "-c", built.inside(command)],
            cwd=source,
            env=variables,
            umask=0o022,
            capture_output=True,
            text=True,
            timeout=BUILDING,
            check=False,
        )
        if done.returncode and any(reason in done.stdout + done.stderr for reason in NO_INDEX):
            pytest.skip("the Python package index cannot be reached")
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@contextmanager
def imitated() -> Iterator[Imitation]:
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="slproxy-image-") as folder:
        root = Path(folder).resolve()
        root.chmod(0o755)
        build(root)
        (root / "tmp").chmod(0o1777)
        working = root / IMAGE.one("WORKDIR").lstrip("/")
        working.chmod(0o555)
        yield Imitation(root, confinement(root))
