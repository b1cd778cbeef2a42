"""Dockerfile, compose.yaml and the Kubernetes manifest: what they say, compared with each other and the program."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import slproxy
from slproxy.app import GRACE
from slproxy.config import ListenSettings
from slproxy.config.variables import META, VARIABLES
from tests.requirements import requirements
from tests.support import ROOT
from tests.support.deployment import (
    APPLICATION,
    BUILD,
    CLIENT,
    COMPOSE,
    COMPOSE_FILE,
    DEMO,
    DEMO_FILE,
    DEPLOYMENT,
    DOCKERFILE,
    HEALTHCHECK,
    IMAGE,
    MANIFEST,
    POD,
    PREFACE,
    PROGRAM,
    PROXY,
    SIDECAR,
    SIDECAR_ENVIRONMENT,
    STAGES,
    STATE,
    USER,
)

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("path", [DOCKERFILE, COMPOSE_FILE, DEMO_FILE, MANIFEST], ids=lambda path: path.name)
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
    assert [stage.one("FROM") for stage in STAGES] == ["${BASE} AS build", "${BASE}"]
    python, base = (word.partition("=")[2] for word in PREFACE.all("ARG"))
    assert base == "docker.io/library/python:${PYTHON}-slim"
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = requires.removeprefix(">=").split(".")
    assert [int(part) for part in python.split(".")] >= [int(part) for part in oldest]


def test_nothing_secret_can_get_into_a_layer() -> None:
    copied = [each.split() for each in BUILD.all("COPY")]

    assert not any(stage.all("ADD") for stage in STAGES)
    assert BUILD.all("ARG") == []
    assert [word.partition("=")[0] for word in IMAGE.all("ARG")] == ["VERSION", "REVISION", "SOURCE"]
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
    assert IMAGE.all("ARG")[0] == f"VERSION={slproxy.__version__}"
    assert {name.rpartition(".")[2]: value for name, value in labels.items() if "$" in value} == {
        name: f"${{{name.upper()}}}" for name in ("version", "revision", "source")
    }
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


def test_the_demo_is_compose_without_secrets() -> None:
    proxy, client = DEMO["slproxy"], DEMO["client"]
    same = ("build", "image", "ports", "healthcheck", "stop_grace_period", "read_only", "cap_drop")

    assert {name: proxy[name] for name in same} == {name: PROXY[name] for name in same}
    assert {name: client[name] for name in ("image", "depends_on")} == {
        name: CLIENT[name] for name in ("image", "depends_on")
    }
    assert proxy["command"] == ["serve", "--sandbox"]
    # Compose takes no list that says the same twice, once this stands behind compose.yaml.
    assert {f"{each}:true" for each in proxy["security_opt"]} == set(PROXY["security_opt"])
    assert not any("secrets" in service for service in (proxy, client))
    assert all(name in DEMO["client"]["command"][0] for name in CLIENT["command"][0].split("|")[1:])


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


def test_one_name_of_the_image_is_used_throughout() -> None:
    texts = [path.read_text() for path in (DOCKERFILE, COMPOSE_FILE, DEMO_FILE, MANIFEST, ROOT / "docs/containers.md")]
    assert {name for text in texts for name in re.findall(r"\bslproxy:\d+\.[\d.]+\b", text)} == {SIDECAR["image"]}
    assert PROXY["image"] == SIDECAR["image"]
    assert f"docker build --tag {SIDECAR['image']} ." in texts[0]


def test_what_the_image_installs_is_pinned_with_hashes_within_the_bounds_of_the_project() -> None:
    pinned: dict[str, str] = {}
    for name in ("requirements.txt", "requirements-build.txt"):
        for entry in re.split(r"\n(?=\w)", (ROOT / "deploy" / name).read_text()):
            found = re.match(r"([\w-]+)==([\w.]+) \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n?)+$", entry)
            assert found, entry
            pinned[found[1]] = found[2]
    wanted = requirements(["slproxy", "otel", "redis", "uvloop", "build"], lowest=False)
    assert {each.name for each in map(Requirement, wanted)} <= set(pinned)
    assert all(each.specifier.contains(pinned[each.name]) for each in map(Requirement, wanted))
