"""The components for kustomize, rendered by kubectl: the sidecar of the manifest, added to any Deployment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT
from tests.support.deployment import POD, SIDECAR

pytestmark = pytest.mark.heavy

COMPONENTS = ROOT / "deploy" / "kustomize"


def rendered(folder: Path) -> dict[str, Any]:
    """Return what a kustomization makes, by kind; skip without kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}


def with_component(name: str, folder: Path, *lines: str) -> Path:
    """Make a kustomization of the example's application, with a component and more lines."""
    shutil.copy(COMPONENTS / "example" / "app.yaml", folder)
    component = os.path.relpath(COMPONENTS / name, folder.resolve())
    text = "\n".join(["resources: [app.yaml]", f"components: [{component}]", *lines])
    (folder / "kustomization.yaml").write_text(text)
    return folder


def test_the_component_adds_the_sidecar_of_the_manifest_before_all_that_needs_it() -> None:
    objects = rendered(COMPONENTS / "example")
    pod = objects["Deployment"]["spec"]["template"]
    sidecar, *others = pod["spec"]["initContainers"]

    assert [each["name"] for each in others] == ["migrate"]
    same = ("env", "image", "resources", "restartPolicy")
    assert {name: sidecar[name] for name in same} == {name: SIDECAR[name] for name in same}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        wanted = SIDECAR[name]["httpGet"] | {"port": SIDECAR["ports"][0]["containerPort"]}
        assert sidecar[name] == SIDECAR[name] | {"httpGet": wanted}
    # The pod's own settings are left alone, so that the container says all that the manifest says for the pod.
    assert "securityContext" not in pod["spec"]
    for_all = {name: value for name, value in POD["securityContext"].items() if name != "fsGroup"}
    assert sidecar["securityContext"] == SIDECAR["securityContext"] | for_all
    assert pod["spec"]["terminationGracePeriodSeconds"] == POD["terminationGracePeriodSeconds"]
    assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_a_kustomization_of_ones_own_names_the_image_by_digest_and_makes_the_secret(tmp_path: Path) -> None:
    digest = f"sha256:{'0' * 64}"
    lines = (
        f"images: [{{name: slproxy, newName: registry.example/slproxy, digest: '{digest}'}}]",
        "secretGenerator: [{name: salesloft, files: [client_id, client_secret]}]",
    )
    for name in ("client_id", "client_secret"):
        (tmp_path / name).write_text("x")
    objects = rendered(with_component("sidecar", tmp_path, *lines))
    pod = objects["Deployment"]["spec"]["template"]["spec"]

    assert pod["initContainers"][0]["image"] == f"registry.example/slproxy@{digest}"
    assert pod["volumes"][0]["secret"]["secretName"] == objects["Secret"]["metadata"]["name"]


def test_the_other_component_adds_it_as_a_container_that_waits_for_the_application_to_end(tmp_path: Path) -> None:
    pod = rendered(with_component("container", tmp_path))["Deployment"]["spec"]["template"]["spec"]

    assert [each["name"] for each in pod["initContainers"]] == ["migrate"]
    assert [each["name"] for each in pod["containers"]] == ["slproxy", "report"]
    added = pod["containers"][0]
    assert "restartPolicy" not in added
    seconds = int(added["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert 0 < seconds < pod["terminationGracePeriodSeconds"] - 30
