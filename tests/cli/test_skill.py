"""``slproxy skill``: what it tells an agent is true, command by command, against the sandbox."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from slproxy.cli.commands.skill import text
from slproxy.errors import Problem
from tests.support.programs import run

SKILL = text(None)  # type: ignore[arg-type]


async def test_it_is_printed_whole_with_front_matter_and_is_short(tmp_path: Path) -> None:
    code, out, err = await run("skill", home=tmp_path)
    assert (code, out, err) == (0, f"{SKILL}\n", "")
    assert re.match(r"---\nname: [a-z]+\ndescription: [^\n]{40,1024}\n---\n\n# ", out)
    assert out.count("\n") < 300


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not here")
async def test_every_command_in_it_works(tmp_path: Path) -> None:
    """One after the other in one shell, as an agent that follows it from the top."""
    blocks = re.findall(r"```bash\n(.*?)```", SKILL, re.DOTALL)
    assert len(blocks) >= 5
    script = "set -eu\n" + "\necho; echo ---\n".join(blocks)
    code, out, err = await run("run", "--sandbox", "--", "bash", "-c", script, home=tmp_path)
    assert code == 0, (out, err)
    me, people, read, cost, change = out.split("---\n")
    assert '"Jane Smith"' in me
    assert people.count("@") > 100
    assert read.count('"data"') == 3
    assert '"data": []' in read, "nobody has that address, and an unknown filter would have found everybody"
    assert "RateLimit: " in cost
    assert '"budget"' in cost
    assert '"Engineer"' in change
    assert change.strip().endswith("204")


def test_the_problems_that_it_names_are_those_of_the_proxy() -> None:
    def types(of: type[Problem]) -> set[str]:
        return {
            *([of.type] if hasattr(of, "type") else []),
            *(each for one in of.__subclasses__() for each in types(one)),
        }

    named = set(
        re.findall(r"`([a-z]+-[a-z-]+)`", SKILL.partition("## When it does not work")[2].partition("## Do not")[0])
    )
    assert named <= types(Problem)
    assert {"login-required", "key-required", "over-budget", "method-refused"} <= named
