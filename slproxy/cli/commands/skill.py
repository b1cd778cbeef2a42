"""``slproxy skill``: prints how an AI agent is to use this proxy, as a skill with front matter."""

from __future__ import annotations

import argparse
from importlib.resources import files


def text(_: argparse.Namespace) -> str:
    """Return the skill, as it is shipped."""
    return files("slproxy.cli").joinpath("text/SKILL.md").read_text(encoding="utf-8").removesuffix("\n")
