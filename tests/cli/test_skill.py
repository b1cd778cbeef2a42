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


def script(*last: str) -> str:
    """All commands of the skill, one after the other in one shell, as an agent that follows it from the top."""
    blocks = [*re.findall(r"```bash\n(.*?)```", SKILL, re.DOTALL), *last]
    assert len(blocks) >= 5
    return "\necho; echo ---\n".join(blocks)


def needs(*programs: str) -> None:
    for each in programs:
        if shutil.which(each) is None:
            pytest.skip(f"{each} is not here")


# zsh is the shell of macOS: it does not split words, and its echo changes JSON, as that of dash does.
@pytest.mark.parametrize("shell", ["bash", "dash", "zsh"])
async def test_every_command_in_it_works(tmp_path: Path, shell: str) -> None:
    needs("jq", shell)
    named = (
        'curl -sS -o /dev/null -H "X-Slproxy-Key: $SLPROXY_KEY" -H "Content-Type: application/json"'
        """ -d '{"first_name": "A\\nB", "email_address": "c@example.com"}' "$SLPROXY_URL/v2/people"\n"""
    )
    code, out, err = await run("run", "--sandbox", "--", shell, "-c", f"set -eu\n{named}{script()}", home=tmp_path)
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


async def test_who_follows_it_sees_each_refusal_and_stops(tmp_path: Path) -> None:
    """A list that is refused ends, with its reason, and so does what would change something."""
    needs("jq", "bash")
    rules = ("--read-only", "--accept-path", "/v2/me")
    code, out, err = await run("run", "--sandbox", *rules, "--", "bash", "-c", script(), home=tmp_path)
    assert code == 22, (out, err)  # curl's, of the last command
    me, people, _read, _cost, change = out.split("---\n")
    assert '"Jane Smith"' in me
    assert people.count('"rule": "client.run.accept_paths"') == 1
    assert change.count('"rule": "client.run.accept_paths"') + change.count('"rule": "client.run.read_only"') >= 2
    assert "The requested URL returned error" in err


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
