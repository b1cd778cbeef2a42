"""What the Dockerfile, compose.yaml and the Kubernetes manifest say, read."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field

import yaml

from tests.support import ROOT

DOCKERFILE = ROOT / "Dockerfile"
COMPOSE_FILE = ROOT / "compose.yaml"
DEMO_FILE = ROOT / "compose.sandbox.yaml"
MANIFEST = ROOT / "deploy" / "kubernetes-sidecar.yaml"


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
DEMO = yaml.safe_load(DEMO_FILE.read_text())["services"]
DEPLOYMENT = yaml.safe_load(MANIFEST.read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
(SIDECAR,) = POD["initContainers"]
(APPLICATION,) = POD["containers"]
SIDECAR_ENVIRONMENT = {each["name"]: each["value"] for each in SIDECAR["env"]}
