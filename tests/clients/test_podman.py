"""The image in podman: what only a real engine shows."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from slproxy.sandbox import Options, Sandbox
from tests.support import ROOT
from tests.support.commands import free_port
from tests.support.deployment import CLIENT, PROXY, SIDECAR_ENVIRONMENT
from tests.support.images import at, log_in
from tests.support.podman import HOST_NETWORK, Podman, podman_with_image, why_not
from tests.support.raw_http import get, raw
from tests.support.sandboxes import running_sandbox
from tests.support.waiting import SLACK, SOON, until

pytestmark = pytest.mark.heavy

KEY = "local-key-0123456789"
# A pod: containers that share a loopback, and nothing else reaches.
POD = ("--network", "none")
ALONE = {"SLPROXY_LISTEN__HOST": "127.0.0.1", "SLPROXY_LISTEN__ALLOW_OTHER_USERS": "true"}
OAUTH = {name: value for name, value in SIDECAR_ENVIRONMENT.items() if "CLIENT" in name} | ALONE


@pytest.fixture
def image(pytestconfig: pytest.Config) -> Iterator[Podman]:
    if reason := why_not(pytestconfig):
        pytest.skip(reason)
    with podman_with_image(pytestconfig) as podman:
        yield podman


@dataclass
class Running:
    """A container in the background."""

    image: Podman
    name: str

    async def podman(self, command: str, *words: str) -> tuple[int, str]:
        return await self.image.podman(command, *words, self.name)

    async def state(self, field: str) -> str:
        return (await self.podman("inspect", "--format", f"{{{{.State.{field}}}}}"))[1].strip()

    async def until_healthy(self) -> None:
        async with asyncio.timeout(SOON):
            while (await self.image.podman("healthcheck", "run", self.name))[0]:
                assert await self.state("Running") == "true", (await self.podman("logs"))[1]


@asynccontextmanager
async def running(image: Podman, env: Mapping[str, str], *words: str) -> AsyncIterator[Running]:
    """Run the image in the background, with its health check, which needs systemd to be run by itself."""
    given = image.options(env)
    container = Running(image, given[1])
    code, said = await image.podman("run", "--detach", *given, PROXY["image"], *words)
    assert code == 0, said
    try:
        yield container
    finally:
        await container.podman("rm", "--force", "--volumes", "--time", "0")


@pytest.mark.parametrize("where", ["flags", "other flags", "file", "variable"])
async def test_the_health_check_finds_the_proxy_wherever_it_listens(image: Podman, where: str, tmp_path: Path) -> None:
    (tmp_path / "slproxy.toml").write_text("[listen]\nport = 9000\n")
    file = ("--volume", f"{tmp_path}/slproxy.toml:/etc/slproxy/slproxy.toml:ro")
    env, options, flags = {
        "flags": ({}, (), ("--port", "9000")),
        "other flags": ({}, (), ("--read-only", "--port=9000", "-v")),
        "file": ({"SLPROXY_CONFIG": "slproxy.toml"}, file, ()),
        "variable": ({"SLPROXY_LISTEN__PORT": "9000"}, (), ()),
    }[where]
    image.more = (*POD, *options)
    async with running(image, ALONE | env, "serve", "--sandbox", *flags) as container:
        await container.until_healthy()
        # A container beside it, as in a pod.
        beside = ("--rm", "--network", f"container:{container.name}", CLIENT["image"])
        code, said = await image.podman("run", *beside, "-sS", "--fail", "http://localhost:9000/v2/me.json")
        assert (code, json.loads(said)["data"]["email"]) == (0, "jane@company.com"), said
        await container.podman("kill", "--signal", "STOP")
        assert (await image.podman("healthcheck", "run", container.name))[0] == 1
        await container.podman("kill", "--signal", "CONT")
        log = json.loads((await container.podman("inspect", "--format", "{{json .State.Health.Log}}"))[1])
        assert "slproxy: no answer at 127.0.0.1:9000 within 3 s" in log[-1]["Output"]


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 1.0])
async def test_a_stop_at_any_moment_of_the_start_is_heard_at_once(image: Podman, delay: float) -> None:
    image.more = POD
    async with running(image, ALONE, "serve", "--sandbox") as container:
        await asyncio.sleep(delay)
        began = time.monotonic()
        await container.podman("kill", "--signal", "TERM")
        code, said = await container.podman("wait")
        took = time.monotonic() - began
    assert (code, said.strip()) == (0, "0")
    assert took < 1 + SLACK


async def test_a_login_in_the_volume_outlives_a_kill_and_a_stop_in_the_middle_of_a_renewal(image: Podman) -> None:
    async with running_sandbox(Options(token_lifetime=5.0)) as sandbox:
        mount_credentials(image, sandbox)
        port = free_port()
        env = image.environment(OAUTH | at(sandbox) | {"SLPROXY_AUTH__LEEWAY": "1"}, port)
        assert (await log_in(image, sandbox, OAUTH)).startswith("Authenticated as: ")
        async with running(image, env) as container:

            async def serves() -> bool:
                await container.until_healthy()
                return (await raw(f"http://127.0.0.1:{port}", get("/v2/me.json"))).head.status == 200

            assert await serves()
            await container.podman("kill", "--signal", "KILL")
            await container.podman("wait")
            await container.podman("start")
            assert await serves()
            renewals = len(sandbox.token_requests)
            sandbox.fault("slow=3", on="token")
            await until(lambda: len(sandbox.token_requests) > renewals)
            await container.podman("stop", "--time", "35")
            assert await container.state("ExitCode") == "0"
            await container.podman("start")
            # The sandbox takes no refresh token twice: it was the renewed one that was stored.
            assert await serves()


def mount_credentials(image: Podman, sandbox: Sandbox) -> None:
    image.secret("/run/secrets/slproxy_key", KEY)
    image.secret("/run/secrets/salesloft_api_key", sandbox.options.api_key)
    image.secret("/run/secrets/salesloft/client_id", sandbox.options.client_id)
    image.secret("/run/secrets/salesloft/client_secret", sandbox.options.client_secret)


async def test_a_key_is_replaced_by_kubernetes_swap_of_symbolic_links(image: Podman, sandbox: Sandbox) -> None:
    mount_credentials(image, sandbox)
    volume = image.secrets / "key"
    for version, key in (("..1", KEY), ("..2", KEY[::-1])):
        (volume / version).mkdir(parents=True)
        (volume / version / "key").write_text(key)
    (volume / "..data").symlink_to("..1")
    (volume / "key").symlink_to("..data/key")
    port = free_port()
    env = image.environment(PROXY["environment"] | at(sandbox), port)
    env["SLPROXY_LISTEN__KEY_FILE"] = "/run/secrets/key/key"

    async def status(key: str) -> int:
        return (await raw(f"http://127.0.0.1:{port}", get("/v2/me.json", f"X-Slproxy-Key: {key}"))).head.status

    async with running(image, env) as container:
        await container.until_healthy()
        assert (await status(KEY), await status(KEY[::-1])) == (200, 401)
        (volume / "..data_tmp").symlink_to("..2")
        (volume / "..data_tmp").rename(volume / "..data")
        async with asyncio.timeout(SOON):
            while await status(KEY[::-1]) != 200:
                await asyncio.sleep(0.1)
        assert await status(KEY) == 401


async def test_any_user_of_group_0_may_run_it(image: Podman, sandbox: Sandbox, tmp_path: Path) -> None:
    """As OpenShift has it: a user that nobody knows, and a volume that is open to the group."""
    mount_credentials(image, sandbox)
    for path in image.secrets.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o444)
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume").chmod(0o2770)
    image.more = (*HOST_NETWORK, "--user", "1234567:0", "--volume", f"{tmp_path}/volume:/state")
    port = free_port()
    env = image.environment(OAUTH | at(sandbox), port)

    code, said = await image.run("slproxy", "serve", env=env)
    assert code == 1
    assert "slproxy: Cannot read /var/lib/slproxy/default.json: Permission denied.\n" in said
    assert "Traceback" not in said
    own = {"SLPROXY_STORE__KIND": "memory", "SLPROXY_AUTH__GRANT": "client_credentials"}, {"XDG_STATE_HOME": "/state"}
    assert (await log_in(image, sandbox, OAUTH | own[1])).startswith("Authenticated as: ")
    for more in own:
        async with running(image, env | more) as container:
            await container.until_healthy()
            assert (await raw(f"http://127.0.0.1:{port}", get("/v2/me.json"))).head.status == 200


async def test_300_uploads_of_1_mb_at_once_fit_into_the_limit_of_the_manifest(image: Podman, sandbox: Sandbox) -> None:
    mount_credentials(image, sandbox)
    port = free_port()
    env = image.environment(SIDECAR_ENVIRONMENT | at(sandbox) | {"SLPROXY_METRICS__PORT": str(free_port())}, port)
    # Not in memory, as in a pod.
    options = ("--memory", "256m", "--memory-swap", "256m", "--volume", "/var/tmp", "--env", "TMPDIR=/var/tmp")
    note = {"content": "x" * 1_000_000, "associated_with_type": "person", "associated_with_id": 1}
    body, headers = json.dumps(note).encode(), {"Content-Type": "application/json"}
    image.more = (*HOST_NETWORK, *options)
    async with running(image, env) as container:
        await container.until_healthy()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as client:

            async def post() -> int:
                async with client.post(f"http://127.0.0.1:{port}/v2/notes.json", data=body, headers=headers) as reply:
                    return reply.status

            assert set(await asyncio.gather(*(post() for _ in range(300)))) == {200}
        assert await container.state("OOMKilled") == "false"


@pytest.mark.parametrize("names", [["compose.sandbox.yaml"], ["compose.yaml", "compose.sandbox.yaml"]], ids=len)
async def test_compose_runs_the_proxy_and_a_client_that_finds_it_by_its_name(
    image: Podman, names: list[str], tmp_path: Path
) -> None:
    compose = shutil.which("podman-compose")
    if compose is None:
        pytest.skip("no podman-compose here")
    for name in names:
        text = (ROOT / name).read_text().replace("127.0.0.1:8642:", f"127.0.0.1:{free_port()}:").replace("build: .", "")
        # podman runs no health check by itself where there is no systemd.
        (tmp_path / name).write_text(text.replace("service_healthy", "service_started"))
    secrets = tmp_path / "deploy" / "secrets"
    secrets.mkdir(parents=True)
    for name in ("slproxy_key", "salesloft_api_key"):
        (secrets / name).write_text(f"{KEY}\n")
    words = (compose, "--podman-path", image.podman_path, *(f"--file={name}" for name in names))
    up = ("up", "--abort-on-container-exit", "--exit-code-from", "client")
    try:
        ran = await asyncio.to_thread(subprocess.run, [*words, *up], cwd=tmp_path, capture_output=True, text=True)
    finally:
        await asyncio.to_thread(subprocess.run, [*words, "down", "--volumes"], cwd=tmp_path, capture_output=True)
    assert ran.returncode == 0, ran.stdout
    assert "jane@company.com" in ran.stdout
