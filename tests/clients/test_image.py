"""The image, run: by podman with ``--podman``, else without an engine (``imitation``)."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

import slproxy
from slproxy.config import LimitSettings
from slproxy.sandbox import Sandbox
from tests.support import ROOT
from tests.support.commands import free_port
from tests.support.deployment import (
    HEALTHCHECK,
    IMAGE,
    PROGRAM,
    PROXY,
    SIDECAR_ENVIRONMENT,
    STATE,
    USER,
)
from tests.support.images import Image, container, log_in
from tests.support.imitation import imitated
from tests.support.podman import podman_with_image, why_not
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.heavy

KEY = "local-key-0123456789"


@pytest.fixture(scope="module")
def built(pytestconfig: pytest.Config) -> Iterator[Image]:
    with imitated() if why_not(pytestconfig) else podman_with_image(pytestconfig) as image:
        yield image


@pytest.fixture
def mounted(built: Image, sandbox: Sandbox) -> Image:
    """The image with the secrets of compose.yaml and of the manifest in their places."""
    built.secret("/run/secrets/slproxy_key", KEY)
    built.secret("/run/secrets/salesloft_api_key", sandbox.options.api_key)
    built.secret("/run/secrets/salesloft/client_id", sandbox.options.client_id)
    built.secret("/run/secrets/salesloft/client_secret", sandbox.options.client_secret)
    return built


async def test_what_the_image_holds_runs_and_has_no_pip(built: Image) -> None:
    env = built.environment({}, 0)
    where = "import json, sys; from pathlib import Path; print(Path(json.__file__).is_relative_to(sys.base_prefix))"

    assert await built.run("slproxy", "--version", env=env) == (0, f"slproxy {slproxy.__version__}\n")
    assert await built.run("python", "-c", "import uvloop", env=env) == (0, "")
    assert await built.run("python", "-c", where, env=env) == (0, "True\n")
    assert "No module named pip" in (await built.run("python", "-m", "pip", env=env))[1]


async def test_the_bill_of_materials_lists_what_is_pinned_and_nothing_else(built: Image) -> None:
    _, said = await built.run("cat", built.inside("/opt/slproxy/sbom.cdx.json"), env=built.environment({}, 0))

    listed = {each["name"]: each["version"] for each in json.loads(said)["components"]}
    pins = (ROOT / "deploy" / "requirements.txt").read_text()
    assert listed == dict(re.findall(r"^([\w-]+)==(\S+)", pins, re.MULTILINE))


async def test_the_image_runs_as_nobody_in_particular_on_a_root_that_is_read_only(built: Image) -> None:
    if not built.read_only:
        pytest.skip("no mount namespace can be made here: only the rights of files keep the root from being written")
    facts = (
        "import os; print(os.getuid(), os.statvfs('/').f_flag & os.ST_RDONLY == os.ST_RDONLY)",
        "print(open('/proc/self/status').read())",
    )

    _, said = await built.run("python", "-c", ";".join(facts), env=built.environment({}, 0))

    assert said.startswith(f"{USER} True\n")
    assert re.search(r"^CapEff:\s+0+$", said, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", said, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", said, re.MULTILINE)


async def test_the_image_does_not_start_without_a_local_key(built: Image) -> None:
    code, said = await built.run(*PROGRAM, env=built.environment({}, free_port()))

    assert code == 2
    assert "listen.key" in said


async def test_the_service_of_compose_is_healthy_and_open_to_who_has_the_key(mounted: Image, sandbox: Sandbox) -> None:
    before = mounted.files()

    async with container(mounted, sandbox, PROXY["environment"]) as running:
        assert await running.healthcheck() == 0
        # The proxy has asked once by itself whom it acts as.
        await until(lambda: bool(sandbox.requests))
        assert (await running.get("/v2/me.json"))[0] == 401
        assert (await running.get("/v2/me.json", X_Slproxy_Key="wrong"))[0] == 401
        assert len(sandbox.requests) == 1
        status, body = await running.get("/v2/me.json", X_Slproxy_Key=KEY)
        assert (status, json.loads(body)["data"]["name"]) == (200, "Jane Smith")
        assert (await running.get("/v2/me.json", X_Slproxy_Key=KEY, Host="slproxy:8642"))[0] == 200
        assert (await running.get("/v2/me.json", X_Slproxy_Key=KEY, Host="evil.example"))[0] == 421

    assert {request.token for request in sandbox.requests} == {sandbox.options.api_key}
    assert mounted.files() == before


async def test_a_large_upload_finds_room_in_tmp_and_leaves_nothing_there(mounted: Image, sandbox: Sandbox) -> None:
    before = mounted.files()
    # More than is kept in memory.
    note = {
        "content": "x" * 3 * LimitSettings().replay_memory,
        "associated_with_type": "person",
        "associated_with_id": 1,
    }
    body = io.BytesIO(json.dumps(note).encode())

    async with container(mounted, sandbox, PROXY["environment"]) as running, aiohttp.ClientSession() as client:
        headers = {"X-Slproxy-Key": KEY, "Content-Type": "application/json"}
        async with client.post(f"{running.url}/v2/notes.json", data=body, headers=headers) as response:
            assert response.status == 200

    # The folder's own time has changed: a file came and went.
    changed = {path for path, _ in mounted.files().items() ^ before.items()}
    assert changed <= {f"{mounted.root}/tmp"}


async def test_the_health_check_fails_when_nobody_listens(mounted: Image) -> None:
    code, _ = await mounted.run(*HEALTHCHECK, env=mounted.environment(PROXY["environment"], free_port()))

    assert code == 1


async def test_the_command_of_the_client_in_compose_gets_an_answer(
    mounted: Image, sandbox: Sandbox, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    async with container(mounted, sandbox, PROXY["environment"]) as running:
        # Stands for Compose's name server, and for the port of the image.
        to = f"slproxy:{IMAGE.one('EXPOSE')}:{running.url.removeprefix('http://')}"
        (tmp_path / ".curlrc").write_text(f'connect-to = "{to}"\nnoproxy = "*"\n')
        process = await asyncio.create_subprocess_exec(
            *mounted.client(tmp_path / ".curlrc"),
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()

    assert json.loads(out)["data"]["email"] == "jane@company.com"


async def test_a_login_in_the_container_is_kept_in_the_volume_and_serves_after_it(
    mounted: Image, sandbox: Sandbox
) -> None:
    # What compose.yaml's comment says for a login: the files of the OAuth application instead of the API key's.
    environment = {name: value for name, value in PROXY["environment"].items() if "API_KEY" not in name} | {
        name: value for name, value in SIDECAR_ENVIRONMENT.items() if "CLIENT" in name
    }
    before = mounted.files()

    assert await log_in(mounted, sandbox, environment) == "Authenticated as: Jane Smith (jane@company.com)\n"
    assert mounted.mode(STATE) == 0o700
    assert mounted.mode(f"{STATE}/default.json") == 0o600
    async with container(mounted, sandbox, environment) as running:
        assert (await running.get("/v2/me.json", X_Slproxy_Key=KEY))[0] == 200
    assert mounted.files() == before


async def test_the_sidecar_passes_its_probes_and_needs_no_key(mounted: Image, sandbox: Sandbox) -> None:
    before = mounted.files()

    async with container(mounted, sandbox, SIDECAR_ENVIRONMENT) as running:
        assert await running.probe("startupProbe") == 200
        assert await running.probe("livenessProbe") == 200
        # Not ready before the first token is there; the kubelet asks again, too.
        async with asyncio.timeout(PATIENCE):
            while await running.probe("readinessProbe") != 200:
                pass
        status, body = await running.get("/v2/me.json")

    assert (status, json.loads(body)["data"]["email"]) == (200, "jane@company.com")
    assert [request.grant_type for request in sandbox.token_requests] == ["client_credentials"]
    assert mounted.files() == before


async def test_a_sidecar_with_wrong_credentials_is_alive_and_not_ready(mounted: Image, sandbox: Sandbox) -> None:
    mounted.secret("/run/secrets/salesloft/client_secret", "not-the-secret")

    async with container(mounted, sandbox, SIDECAR_ENVIRONMENT) as running:
        assert await running.probe("livenessProbe") == 200
        assert await running.probe("readinessProbe") == 503
        status, body = await running.get("/v2/me.json")

    assert (status, json.loads(body)["type"].rpartition("/")[2]) == (503, "credentials-refused")
