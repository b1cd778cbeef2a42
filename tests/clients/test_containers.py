"""Dockerfile, compose.yaml and the Kubernetes manifest, as far as that can be had without a container engine.

What they say is read and compared: with each other and with the program. What they run is run: the very commands of the
Dockerfile build a fresh environment below a folder that stands for the image's root, and what is in it is started with
the image's environment as an unprivileged user. Where the kernel lets root make a mount namespace, that is under a
read-only root file system and without any capability, as ``docker run --read-only --cap-drop ALL`` has it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import yaml

import slproxy
from slproxy.app import GRACE
from slproxy.config import LimitSettings, ListenSettings
from slproxy.config.variables import META, VARIABLES
from slproxy.sandbox import Sandbox
from tests.support import ROOT
from tests.support.raw_http import get, raw
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.heavy

DOCKERFILE = ROOT / "Dockerfile"
COMPOSE_FILE = ROOT / "compose.yaml"
MANIFEST = ROOT / "deploy" / "kubernetes-sidecar.yaml"

KEY = "local-key-0123456789"
# pip's own words for "there was no index to ask".
NO_INDEX = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyError")
BUILDING = 120.0
# Both writable places are mounted over themselves first, so that they stay writable when the root no longer is.
CONFINE = """
mount --bind "$1" "$1" && mount --bind "$2" "$2" && mount -o remount,bind,ro / && shift 2 &&
exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


# What the files say.


@dataclass
class Stage:
    """One stage of a Dockerfile: its instructions in order, each with its arguments as one text."""

    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [arguments for instruction, arguments in self.instructions if instruction == name]

    def one(self, name: str) -> str:
        (arguments,) = self.all(name)
        return arguments

    @property
    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for arguments in self.all("ENV") for word in shlex.split(arguments))


def stages_of(dockerfile: str) -> tuple[Stage, list[Stage]]:
    """Return what stands before the first FROM, and the stages."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages = [Stage()]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            stages.append(Stage())
        stages[-1].instructions.append((instruction, arguments.strip()))
    return stages[0], stages[1:]


PREFACE, STAGES = stages_of(DOCKERFILE.read_text())
BUILD, IMAGE = STAGES[0], STAGES[-1]
HEALTHCHECK: list[str] = json.loads(IMAGE.one("HEALTHCHECK").partition(" CMD ")[2])
PROGRAM: list[str] = [*json.loads(IMAGE.one("ENTRYPOINT")), *json.loads(IMAGE.one("CMD"))]
STATE = IMAGE.one("VOLUME")
USER = int(IMAGE.one("USER").partition(":")[0])
COMPOSE = yaml.safe_load(COMPOSE_FILE.read_text())
PROXY, CLIENT = COMPOSE["services"]["slproxy"], COMPOSE["services"]["client"]
DEPLOYMENT = yaml.safe_load(MANIFEST.read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
(SIDECAR,) = POD["initContainers"]
(APPLICATION,) = POD["containers"]
SIDECAR_ENVIRONMENT = {each["name"]: each["value"] for each in SIDECAR["env"]}


@pytest.mark.parametrize("path", [DOCKERFILE, COMPOSE_FILE, MANIFEST], ids=lambda path: path.name)
def test_every_variable_that_the_file_names_is_a_setting(path: Path) -> None:
    named = set(re.findall(r"\b(?:SLPROXY|SALESLOFT)_[A-Z_]+\b", path.read_text()))

    assert named
    assert named <= {*VARIABLES, *META}


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param(IMAGE.environment, id="image"),
        pytest.param(PROXY["environment"], id="compose"),
        pytest.param(SIDECAR_ENVIRONMENT, id="sidecar"),
    ],
)
def test_secrets_are_given_as_files_and_never_as_values(environment: Mapping[str, str]) -> None:
    given = [VARIABLES[name] for name in environment if name in VARIABLES]

    assert all(from_file for setting, from_file in given if setting.secret)


def test_the_image_is_built_in_two_stages_on_a_python_that_the_program_supports() -> None:
    assert [stage.one("FROM") for stage in STAGES] == ["python:${PYTHON}-slim AS build", "python:${PYTHON}-slim"]
    python = PREFACE.one("ARG").removeprefix("PYTHON=")
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = requires.removeprefix(">=").split(".")
    assert [int(part) for part in python.split(".")] >= [int(part) for part in oldest]


def test_nothing_secret_can_get_into_a_layer() -> None:
    copied = [each.split() for each in BUILD.all("COPY")]

    assert not any(stage.all("ADD") + stage.all("ARG") for stage in STAGES)
    assert IMAGE.all("COPY") == ["--from=build /opt/slproxy /opt/slproxy"]
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert ignored[0] == "*"
    assert let_in == {source for *sources, _ in copied for source in sources}
    assert all((ROOT / name).exists() for name in let_in)


def test_the_image_runs_as_a_numbered_user_who_alone_may_enter_the_state_folder() -> None:
    assert USER >= 1000
    assert f"install -d -o {USER} -g {USER} -m 0700 {STATE}" in IMAGE.one("RUN")
    # Where slproxy looks by itself, so that each profile keeps its own token there.
    assert IMAGE.environment["XDG_STATE_HOME"] + "/slproxy" == STATE
    names = [name for name, _ in IMAGE.instructions]
    assert names.index("RUN") < names.index("USER")


def test_the_image_says_what_it_is_and_where_it_listens() -> None:
    labels = dict(word.split("=", 1) for word in shlex.split(IMAGE.one("LABEL")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert labels["org.opencontainers.image.title"] == project["name"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]
    assert IMAGE.one("EXPOSE") == str(ListenSettings().port)
    assert IMAGE.environment["SLPROXY_LISTEN__HOST"] == IMAGE.environment["SLPROXY_METRICS__HOST"] == "0.0.0.0"
    assert IMAGE.one("STOPSIGNAL") == "SIGTERM"


def test_the_image_and_compose_ask_the_program_itself_whether_it_is_up() -> None:
    _, *compose = PROXY["healthcheck"]["test"]

    assert compose == HEALTHCHECK == [*PROGRAM[:1], "healthcheck"]


@pytest.mark.parametrize("service", [PROXY, CLIENT], ids=["proxy", "client"])
def test_each_service_of_compose_runs_without_rights(service: Mapping[str, object]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_publishes_the_port_on_this_machine_alone_and_keeps_the_state() -> None:
    port = IMAGE.one("EXPOSE")

    assert PROXY["ports"] == [f"127.0.0.1:{port}:{port}"]
    ((volume, place),) = [each.split(":") for each in PROXY["volumes"]]
    assert volume in COMPOSE["volumes"]
    assert place == STATE
    assert [each.split(":")[0] for each in PROXY["tmpfs"]] == ["/tmp"]
    assert int(PROXY["stop_grace_period"].removesuffix("s")) > GRACE


def test_compose_mounts_the_secrets_that_are_named_and_git_ignores_them() -> None:
    files = {value for name, value in PROXY["environment"].items() if name.endswith("_FILE")}
    folder = ROOT / "deploy" / "secrets"

    assert files == {f"/run/secrets/{name}" for name in PROXY["secrets"]}
    assert set(CLIENT["secrets"]) <= set(PROXY["secrets"]) == set(COMPOSE["secrets"])
    assert all(ROOT / each["file"] == folder / name for name, each in COMPOSE["secrets"].items())
    assert (folder / ".gitignore").read_text().split() == ["*", "!.gitignore"]


def test_the_client_of_compose_waits_for_the_proxy_and_calls_it_by_a_name_that_it_accepts() -> None:
    assert CLIENT["depends_on"] == {"slproxy": {"condition": "service_healthy"}}
    assert PROXY["environment"]["SLPROXY_LISTEN__ACCEPT_HOSTS"] == "slproxy"
    assert f"http://slproxy:{IMAGE.one('EXPOSE')}/v2/" in CLIENT["command"][0]


def test_the_sidecar_is_a_native_one_of_this_version() -> None:
    assert (DEPLOYMENT["apiVersion"], DEPLOYMENT["kind"]) == ("apps/v1", "Deployment")
    assert SIDECAR["restartPolicy"] == "Always"
    assert SIDECAR["image"] == f"slproxy:{slproxy.__version__}"
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert POD["terminationGracePeriodSeconds"] > GRACE


def test_the_sidecar_serves_its_pod_alone_and_everybody_else_metrics_and_probes() -> None:
    probes = {name: value for name, value in SIDECAR.items() if name.endswith("Probe")}
    (port,) = SIDECAR["ports"]

    assert SIDECAR_ENVIRONMENT["SLPROXY_LISTEN__HOST"] == "127.0.0.1"
    assert SIDECAR_ENVIRONMENT["SLPROXY_METRICS__HOST"] == "0.0.0.0"
    assert SIDECAR_ENVIRONMENT["SLPROXY_METRICS__PORT"] == str(port["containerPort"])
    assert {name: probe["httpGet"] for name, probe in probes.items()} == {
        "startupProbe": {"path": "/healthz", "port": port["name"]},
        "readinessProbe": {"path": "/readyz", "port": port["name"]},
        "livenessProbe": {"path": "/healthz", "port": port["name"]},
    }
    assert all("timeoutSeconds" in probe for probe in probes.values())
    assert f"http://localhost:{ListenSettings().port}/v2/" in str(APPLICATION["command"])


@pytest.mark.parametrize("container", [SIDECAR, APPLICATION], ids=["sidecar", "application"])
def test_each_container_of_the_pod_runs_without_rights_and_within_bounds(container: Mapping[str, object]) -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "runAsUser": USER,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        **({"runAsGroup": USER} if container is SIDECAR else {}),
    }
    resources = container["resources"]
    assert isinstance(resources, dict)
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert "memory" in resources["limits"]


def test_the_sidecar_mounts_the_secrets_that_it_names_for_its_group_alone() -> None:
    mounts = {each["name"]: each for each in SIDECAR["volumeMounts"]}
    volumes = {each["name"]: each for each in POD["volumes"]}
    files = [value for name, value in SIDECAR_ENVIRONMENT.items() if name.endswith("_FILE")]

    assert set(mounts) == set(volumes)
    assert files
    assert all(str(Path(file).parent) == mounts["salesloft"]["mountPath"] for file in files)
    assert mounts["salesloft"]["readOnly"] is True
    assert volumes["salesloft"]["secret"]["defaultMode"] == 0o440
    assert POD["securityContext"]["fsGroup"] == USER
    assert mounts["tmp"]["mountPath"] == "/tmp"


# What they run.


@dataclass
class Built:
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
    built = Built(root)
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


@pytest.fixture(scope="module")
def built() -> Iterator[Built]:
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="slproxy-image-") as folder:
        root = Path(folder).resolve()
        root.chmod(0o755)
        build(root)
        (root / "tmp").chmod(0o1777)
        working = root / IMAGE.one("WORKDIR").lstrip("/")
        working.chmod(0o555)
        yield Built(root, confinement(root))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Container:
    """A started image."""

    built: Built
    env: dict[str, str]
    process: asyncio.subprocess.Process
    url: str

    async def healthcheck(self) -> int:
        return (await self.built.run(*HEALTHCHECK, env=self.env))[0]

    async def probe(self, name: str) -> int:
        """Ask as the kubelet does: at another address than that of clients, by the pod's."""
        path, port = SIDECAR[name]["httpGet"]["path"], self.env["SLPROXY_METRICS__PORT"]
        return (await raw(f"http://127.0.0.1:{port}", get(path, host=f"10.1.2.3:{port}"))).head.status

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as client,
            client.get(
                self.url + path, headers={name.replace("_", "-"): value for name, value in headers.items()}
            ) as got,
        ):
            return got.status, await got.text()


@asynccontextmanager
async def container(built: Built, sandbox: Sandbox, more: Mapping[str, str]) -> AsyncIterator[Container]:
    """Run the image with ``more`` variables against a sandbox, and hold that it stops when it is told to."""
    port = free_port()
    upstream = {"SLPROXY_UPSTREAM__API_URL": sandbox.url, "SLPROXY_UPSTREAM__ACCOUNTS_URL": sandbox.url}
    env = built.environment({**more, **upstream}, port)
    if "SLPROXY_METRICS__PORT" in env:
        env["SLPROXY_METRICS__PORT"] = str(free_port())
    process = await built.start(*PROGRAM, env=env)
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[bytes] = []

    async def collect(stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            said.append(line)

    collecting = [asyncio.create_task(collect(stream)) for stream in (process.stdout, process.stderr)]
    try:
        await until(lambda: any(b"Listening on " in line for line in said) or process.returncode is not None)
        assert process.returncode is None, b"".join(said).decode()
        yield Container(built, env, process, f"http://127.0.0.1:{port}")
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0, b"".join(said).decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.gather(*collecting)


@pytest.fixture
def mounted(built: Built, sandbox: Sandbox) -> Built:
    """The image with the secrets of compose.yaml and of the manifest in their places."""
    built.secret("/run/secrets/slproxy_key", KEY)
    built.secret("/run/secrets/salesloft_api_key", sandbox.options.api_key)
    built.secret("/run/secrets/salesloft/client_id", sandbox.options.client_id)
    built.secret("/run/secrets/salesloft/client_secret", sandbox.options.client_secret)
    return built


async def test_what_the_image_holds_runs_and_has_no_pip(built: Built) -> None:
    env = built.environment({}, 0)
    where = "import json, sys; from pathlib import Path; print(Path(json.__file__).is_relative_to(sys.base_prefix))"

    assert await built.run("slproxy", "--version", env=env) == (0, f"slproxy {slproxy.__version__}\n")
    assert await built.run("python", "-c", "import uvloop", env=env) == (0, "")
    assert await built.run("python", "-c", where, env=env) == (0, "True\n")
    assert "No module named pip" in (await built.run("python", "-m", "pip", env=env))[1]


def test_one_name_of_the_image_is_used_throughout() -> None:
    texts = [path.read_text() for path in (DOCKERFILE, COMPOSE_FILE, MANIFEST, ROOT / "README.md")]
    assert {name for text in texts for name in re.findall(r"\bslproxy:\d+\.[\d.]+\b", text)} == {SIDECAR["image"]}
    assert PROXY["image"] == SIDECAR["image"]
    assert f"docker build --tag {SIDECAR['image']} ." in texts[0]


async def test_the_image_runs_as_nobody_in_particular_on_a_root_that_is_read_only(built: Built) -> None:
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


async def test_the_image_does_not_start_without_a_local_key(built: Built) -> None:
    code, said = await built.run(*PROGRAM, env=built.environment({}, free_port()))

    assert code == 2
    assert "listen.key" in said


async def test_the_service_of_compose_is_healthy_and_open_to_who_has_the_key(mounted: Built, sandbox: Sandbox) -> None:
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


async def test_a_large_upload_finds_room_in_tmp_and_leaves_nothing_there(mounted: Built, sandbox: Sandbox) -> None:
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


async def test_the_health_check_fails_when_nobody_listens(mounted: Built) -> None:
    code, _ = await mounted.run(*HEALTHCHECK, env=mounted.environment(PROXY["environment"], free_port()))

    assert code == 1


async def test_the_command_of_the_client_in_compose_gets_an_answer(
    mounted: Built, sandbox: Sandbox, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    async with container(mounted, sandbox, PROXY["environment"]) as running:
        # Stands for Compose's name server, and for the port of the image.
        to = f"slproxy:{IMAGE.one('EXPOSE')}:{running.url.removeprefix('http://')}"
        (tmp_path / ".curlrc").write_text(f'connect-to = "{to}"\nnoproxy = "*"\n')
        process = await asyncio.create_subprocess_exec(
            *CLIENT["entrypoint"],
            *(mounted.inside(word) for word in CLIENT["command"]),
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()

    assert json.loads(out)["data"]["email"] == "jane@company.com"


async def test_a_login_in_the_container_is_kept_in_the_volume_and_serves_after_it(
    mounted: Built, sandbox: Sandbox
) -> None:
    # What compose.yaml's comment says for a login: the files of the OAuth application instead of the API key's.
    environment = {name: value for name, value in PROXY["environment"].items() if "API_KEY" not in name} | {
        name: value for name, value in SIDECAR_ENVIRONMENT.items() if "CLIENT" in name
    }
    upstream = {"SLPROXY_UPSTREAM__API_URL": sandbox.url, "SLPROXY_UPSTREAM__ACCOUNTS_URL": sandbox.url}
    before = mounted.files()
    process = await mounted.start(
        *PROGRAM[:1],
        *("login", "--no-browser"),
        env=mounted.environment({**environment, **upstream}, free_port()),
        stdin=b"",
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while not (line := (await process.stderr.readline()).decode()).strip().startswith("http"):
            assert line, "the program ended before it named the address to open"
        async with (
            aiohttp.ClientSession() as browser,
            browser.get(line.strip() + "&sandbox_consent=allow", allow_redirects=False) as redirect,
        ):
            pasted = redirect.headers["Location"]
        out, _ = await process.communicate(pasted.encode() + b"\n")

    assert out.decode() == "Authenticated as: Jane Smith (jane@company.com)\n"
    assert mounted.mode(STATE) == 0o700
    assert mounted.mode(f"{STATE}/default.json") == 0o600
    async with container(mounted, sandbox, environment) as running:
        assert (await running.get("/v2/me.json", X_Slproxy_Key=KEY))[0] == 200
    assert mounted.files() == before


async def test_the_sidecar_passes_its_probes_and_needs_no_key(mounted: Built, sandbox: Sandbox) -> None:
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


async def test_a_sidecar_with_wrong_credentials_is_alive_and_not_ready(mounted: Built, sandbox: Sandbox) -> None:
    mounted.secret("/run/secrets/salesloft/client_secret", "not-the-secret")

    async with container(mounted, sandbox, SIDECAR_ENVIRONMENT) as running:
        assert await running.probe("livenessProbe") == 200
        assert await running.probe("readinessProbe") == 503
        status, body = await running.get("/v2/me.json")

    assert (status, json.loads(body)["type"].rpartition("/")[2]) == (503, "credentials-refused")
