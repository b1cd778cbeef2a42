"""``slproxy completion``: the three shells complete what the parser has. Real shells, the script as printed."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from slproxy.cli.parser import COMMANDS
from tests.support.commands import run_here
from tests.support.programs import environment
from tests.support.terminals import Terminal, terminal
from tests.support.waiting import until

# What is typed, some of what is offered then, and some that is not.
LINES: Mapping[str, tuple[str, str]] = {
    "slproxy ": (" ".join({command.name.split()[0] for command in COMMANDS}), "mine.toml"),
    "slproxy st": ("status store", "serve"),
    "slproxy --": ("--config --profile --sandbox --version --log-level", "--watch"),
    "slproxy status --": ("--watch --json --port --config", "--read-only"),
    "slproxy --profile work status --w": ("--watch", "serve"),
    "slproxy -v store ": ("move rekey", "serve"),
    "slproxy store move --": ("--to --from --config", "--new-key-file"),
    "slproxy store move --to ": ("file keyring redis", "mine.toml"),
    "slproxy serve --log-level ": ("debug info warning error", "mine.toml"),
    "slproxy completion ": ("bash zsh fish", "mine.toml"),
    "slproxy --config ": ("mine.toml folder/", "serve"),
    "slproxy serve --uds=mi": ("mine.toml", "serve"),
    "slproxy status --profile ": ("default work", "mine.toml"),
    "slproxy run --read-only --": ("--accept-path --budget --name", "--watch"),
    "slproxy run -- sl": ("sleep", "mine.toml"),
    "slproxy run --budget 10 cat mi": ("mine.toml", "serve"),
}


async def script(shell: str, home: Path) -> Path:
    """Write the script for a shell beside two profiles, and put ``slproxy`` on the path."""
    code, out, err = await run_here("completion", shell, home=home)
    assert (code, err) == (0, "")
    path = home / f"completion.{shell}"
    path.write_text(out)
    program = home / "bin" / "slproxy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m slproxy "$@"\n')
    program.chmod(0o755)
    (home / "folder").mkdir()
    (home / "mine.toml").touch()
    (home / "slproxy.toml").write_text("[profile.work.listen]\nport = 1001\n")
    (home / "slproxy.toml").chmod(0o600)
    return path


def variables(home: Path) -> dict[str, str]:
    return environment(home, PATH=f"{home}/bin:{os.environ['PATH']}", TERM="xterm", COLUMNS="200", LANG="C.UTF-8")


async def offered(home: Path, *command: str) -> dict[str, set[str]]:
    """Run a shell that prints what it offers for each line, under the line; return that."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=home, env=variables(home), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert err == b""
    found: dict[str, set[str]] = {}
    for line in out.decode().splitlines():
        if line.startswith("slproxy "):
            found[line] = words = set()
        else:
            words.add(line.partition("\t")[0])
    return found


def check(found: Mapping[str, set[str]]) -> None:
    for line, (wanted, unwanted) in LINES.items():
        # A value may be told with its flag, and a folder with its slash.
        words = {word.rpartition("=")[2] for word in found[line]} | {f"{word}/" for word in found[line]}
        assert set(wanted.split()) - words == set(), line
        assert unwanted not in words, line


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
async def test_bash_completes_what_the_parser_has(tmp_path: Path) -> None:
    path = await script("bash", tmp_path)
    # Readline hands over the words of a line, of which = is one.
    typed = """
    complete_line() {
        read -ra COMP_WORDS <<<"${1//=/ = }"
        [[ $1 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _slproxy 2>/dev/null
        printf "%s\\n" "$1" "${COMPREPLY[@]}"
    }
    """
    lines = "\n".join(f"complete_line '{line}'" for line in LINES)
    check(await offered(tmp_path, "bash", "--norc", "-c", f'eval "$(cat "{path}")"\n{typed}\n{lines}'))


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
async def test_fish_completes_what_the_parser_has(tmp_path: Path) -> None:
    path = await script("fish", tmp_path)
    lines = "\n".join(f"echo '{line}'; complete -C '{line}'" for line in LINES)
    check(await offered(tmp_path, "fish", "--no-config", "-c", f'source "{path}"\n{lines}'))


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize("compinit", ["autoload -Uz compinit; compinit -u -D;", ""], ids=["with compinit", "bare"])
async def test_zsh_completes_what_the_parser_has(tmp_path: Path, compinit: str) -> None:
    """As it lists them on a terminal: it tells nobody else. Without a ~/.zshrc, as on macOS, nothing loads compinit."""
    path = await script("zsh", tmp_path)
    start = f"""
        PS1= LISTMAX=1000
        zstyle ':completion:*' list-separator '#'; bindkey '^I' list-choices
        {compinit} eval "$(cat '{path}')"; echo re''ady
        """
    with terminal(lines=200, columns=200) as it:
        process = await asyncio.create_subprocess_exec(
            *("setsid", "--ctty", "zsh", "-f", "-i"),
            cwd=tmp_path,
            env=variables(tmp_path),
            stdin=it.file,
            stdout=it.file,
            stderr=it.file,
        )
        try:
            os.write(it.keys, start.encode())
            await until(lambda: it.shows("ready"))
            for line, (wanted, unwanted) in LINES.items():
                it.drawn = ""
                os.write(it.keys, line.encode() + b"\t")
                await until(functools.partial(lists, it, wanted))
                assert unwanted not in told(it.drawn) - {*line.split()}, line
                os.write(it.keys, b"\x15")
        finally:
            process.kill()
            await process.wait()


def lists(it: Terminal, wanted: str) -> bool:
    it.shows()
    return set(wanted.split()) <= told(it.drawn)


def told(drawn: str) -> set[str]:
    """Return the words that were drawn, without what a terminal obeys."""
    return set(re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])", " ", drawn).split())


async def test_the_names_of_profiles_are_told_without_a_look_at_their_logins(tmp_path: Path) -> None:
    (tmp_path / "slproxy.toml").write_text("[profile.work.store]\nkind = 'keyring'\n")
    (tmp_path / "slproxy.toml").chmod(0o600)
    assert await run_here("profiles", "--names", home=tmp_path) == (0, "default\nwork\n", "")
