"""The image in podman, hardened as the documentation has it; ``.ci/image`` builds it."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deployment import CLIENT, PROXY, STATE, USER
from tests.support.waiting import PATIENCE

HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
# Both sides of the tests reach each other on loopback.
HOST_NETWORK = ("--network", "host")


class Podman:
    """The image, with a volume for its state and a folder of secrets of its own."""

    # What an engine does by itself, and `Imitation` imitates.
    root = Path("/")
    read_only = True

    def __init__(self, podman: str, folder: Path) -> None:
        self.podman_path = podman
        self.secrets = folder / "secrets"
        # What else `podman run` is given.
        self.more: Sequence[str] = HOST_NETWORK
        self._tag = f"slproxy-test-{secrets.token_hex(4)}"
        self._count = 0

    def inside(self, text: str) -> str:
        return text

    def environment(self, more: Mapping[str, str], port: int) -> dict[str, str]:
        return {**more, "SLPROXY_LISTEN__PORT": str(port)}

    def options(self, env: Mapping[str, str]) -> list[str]:
        """Return what `podman run` is given for a container of the image, and a name that no other has."""
        self._count += 1
        given = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        mounts = ("--volume", f"{self._tag}:{STATE}", "--volume", f"{self.secrets}:/run/secrets:ro")
        return ["--name", f"{self._tag}-{self._count}", *HARDENED, *mounts, *given, *self.more]

    async def start(
        self, *command: str, env: Mapping[str, str], stdin: bytes | None = None
    ) -> asyncio.subprocess.Process:
        """Start a command in a container; a signal to the process is passed on to the command."""
        program = () if command[0] == "slproxy" else ("--entrypoint", command[0])
        return await asyncio.create_subprocess_exec(
            *(self.podman_path, "run", "--rm", "--no-healthcheck", *(() if stdin is None else ("--interactive",))),
            *(*self.options(env), *program, PROXY["image"], *command[1:]),
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *command: str, env: Mapping[str, str]) -> tuple[int, str]:
        """Run a command in a container to its end; return exit code and what it said."""
        process = await self.start(*command, env=env)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, (out + err).decode()

    async def podman(self, *words: str) -> tuple[int, str]:
        """Run podman itself to its end; return exit code and what it said."""
        process = await asyncio.create_subprocess_exec(
            *(self.podman_path, *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(2 * PATIENCE):
            out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()

    def client(self, curlrc: Path) -> list[str]:
        """Return the command of the client of compose.yaml, with settings for its curl."""
        mounts = ("--volume", f"{self.secrets}:/run/secrets:ro", "--volume", f"{curlrc}:/.curlrc:ro")
        # Compose's files are readable to all; these are to a group.
        options = (*HOST_NETWORK, *HARDENED, *mounts, "--group-add", str(USER), "--env", "CURL_HOME=/")
        shell, *words = (str(word) for word in (*CLIENT["entrypoint"], *CLIENT["command"]))
        return [self.podman_path, "run", "--rm", *options, "--entrypoint", shell, CLIENT["image"], *words]

    def secret(self, path: str, value: str) -> None:
        """Mount a secret: readable to the group of the image's user, as Kubernetes has it."""
        place = self.secrets / Path(path).relative_to("/run/secrets")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_text(value + "\n")
        place.chmod(0o440)
        os.chown(place, 0, USER)

    @property
    def state(self) -> Path:
        """The folder of the state, seen from outside."""
        words = (self.podman_path, "volume", "inspect", self._tag, "--format", "{{.Mountpoint}}")
        return Path(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip())

    def mode(self, path: str) -> int:
        return (self.state / Path(path).relative_to(STATE)).stat().st_mode & 0o777

    def files(self) -> dict[str, tuple[int, int]]:
        """Return nothing: the engine itself lets nobody write outside of the state and of /tmp."""
        return {}

    def close(self) -> None:
        """Remove what is left of the containers, and their state."""
        names = [f"{self._tag}-{number + 1}" for number in range(self._count)]
        for words in (
            ["rm", "--force", "--volumes", "--ignore", "--time", "0", *names],
            ["volume", "rm", "--force", self._tag],
        ):
            subprocess.run([self.podman_path, *words], check=False, capture_output=True)


def why_not(config: pytest.Config) -> str:
    """Return why the image cannot be run in podman here, or nothing where it can."""
    podman = config.getoption("--podman")
    if podman is None:
        return "with --podman (CONTRIBUTING.md)"
    words = [podman, "image", "inspect", PROXY["image"], CLIENT["image"]]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    return done.stderr.strip() or "podman does not run" if done.returncode else ""


@contextmanager
def podman_with_image(config: pytest.Config) -> Iterator[Podman]:
    """Return the image in podman, with no secrets and no state."""
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="slproxy-secrets-") as folder:
        Path(folder).chmod(0o755)
        named = config.getoption("--podman")
        podman = Podman(str(Path(shutil.which(named) or named).absolute()), Path(folder))
        podman.secrets.mkdir()
        try:
            yield podman
        finally:
            podman.close()
