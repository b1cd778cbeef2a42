"""The pages are right: links lead somewhere, and each example is run, or held to what the program takes."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from slproxy.cli.parser import COMMANDS, parse
from slproxy.cli.usage import UsageError
from slproxy.config import SCHEMA, load
from slproxy.config.schema import client_schema
from slproxy.config.variables import META, VARIABLES
from tests.support import ROOT
from tests.support.commands import allowed, interactive, logged_in, oauth, sandboxed
from tests.support.docs import (
    Example,
    Words,
    anchors,
    examples,
    inline_code,
    links,
    pages,
    simple_commands,
    table,
)
from tests.support.programs import environment, program, verified
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.heavy

PAGES = pages()
EXAMPLES = examples()
# Where a person is told what to do; CHANGELOG tells what was, too.
GUIDES = [ROOT / "README.md", ROOT / "deploy/README.md", *(path for path in PAGES if path.parent == ROOT / "docs")]


def here(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def of(*languages: str) -> list[Example]:
    return [each for each in EXAMPLES if each.language in languages]


def commands() -> list[tuple[str, str]]:
    """Return each command that is shown on a console, and where."""
    return [(here(each.page), command) for each in of("console") for command, _ in each.commands()]


# Links


def broken(path: Path, text: str) -> list[str]:
    """Return the links of a page that lead nowhere, as GitHub has it."""
    found = []
    for link in links(text):
        url = urlsplit(link)
        if url.scheme or url.netloc:
            wrong = url.scheme != "https" or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", url.netloc)
        else:
            target = path.parent / url.path if url.path else path
            wrong = not target.exists() or not target.resolve().is_relative_to(ROOT)
            if not wrong and url.fragment:
                wrong = url.fragment not in anchors(text if target == path else target.read_text("utf-8"))
        if wrong:
            found.append(link)
    return found


def test_each_link_leads_to_a_file_and_a_heading_that_are_there() -> None:
    assert {here(path): wrong for path in PAGES if (wrong := broken(path, path.read_text("utf-8")))} == {}


def test_each_file_of_the_repository_that_is_named_is_there() -> None:
    named = {
        (here(path), word)
        for path in (*GUIDES, ROOT / "CONTRIBUTING.md")
        for word in re.findall(
            r"(?<![\w./~@-])(?:(?:deploy|docs|tests|benchmarks|postman|\.ci|\.github)/[\w./-]*\w|compose[\w.]*\.yaml)",
            path.read_text("utf-8"),
        )
    }
    # What a person writes there.
    missing = {
        word for where, word in named if not ((ROOT / where).parent / word).exists() and not (ROOT / word).exists()
    }
    assert len(named) > 40
    assert {word for word in missing if not word.startswith("deploy/secrets/")} == set()


@pytest.mark.parametrize(
    "link", ["nowhere.md", "#nowhere", "contract.md#nowhere", "../../etc", "http://example.com", "https://localhost/"]
)
def test_a_link_that_leads_nowhere_would_be_seen(link: str) -> None:
    assert broken(ROOT / "docs" / "laptop.md", f"# On a laptop\n[there](contract.md#order) [x]({link})\n") == [link]


def test_each_page_can_be_reached_from_the_readme() -> None:
    reached, next_ones = set(), {ROOT / "README.md"}
    while next_ones:
        reached |= next_ones
        next_ones = {
            (path.parent / urlsplit(link).path).resolve()
            for path in next_ones
            for link in links(path.read_text("utf-8"))
            if urlsplit(link).path.endswith(".md") and not urlsplit(link).scheme
        } - reached
    assert set(PAGES) <= reached


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("## What this holds, and what it does not", "what-this-holds-and-what-it-does-not"),
        ("## `X-Y` (a → b)", "x-y-a--b"),
        ("## The [inspector](inspector.md)", "the-inspector"),
    ],
)
def test_anchors_are_those_of_github(heading: str, anchor: str) -> None:
    assert anchors(f"# One\n\n{heading}\n\n```\n# no heading\n```\n## One\n") == {"one", anchor, "one-1"}


def test_the_readme_stays_short() -> None:
    assert (ROOT / "README.md").read_text("utf-8").count("\n") <= 165


# What the examples are made of


def test_each_example_names_its_language() -> None:
    known = {"bash", "console", "javascript", "json", "python", "toml"}
    assert {(here(each.page), each.language) for each in EXAMPLES if each.language not in known} == set()


@pytest.mark.parametrize("example", of("toml"), ids=lambda each: here(each.page))
def test_toml_is_settings_that_the_program_takes(example: Example, tmp_path: Path) -> None:
    (path := tmp_path / "slproxy.toml").write_text(example.text)
    for file in re.findall(r'_file = "([^"]+)"', example.text):
        (tmp_path / file).write_text("a-key-of-32-characters-at-least!")
    for profile in tomllib.loads(example.text).get("profile", ["default"]):
        load(config=path, profile=profile, flags={}, environ={"HOME": str(tmp_path)}, cwd=tmp_path)


@pytest.mark.parametrize("example", of("json"), ids=lambda each: here(each.page))
def test_json_is_json(example: Example) -> None:
    json.loads(example.text)


@pytest.mark.parametrize("example", of("python"), ids=lambda each: here(each.page))
def test_python_is_python(example: Example) -> None:
    compile(example.text, "example", "exec")


def test_shell_is_shell() -> None:
    texts = chain((each.text for each in of("bash")), (command for _, command in commands()))
    checked = subprocess.run(["bash", "-n"], input="\n".join(texts), capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


# Commands and settings


def is_taken(words: list[str]) -> bool:
    """Return whether the program takes a command line."""
    try:
        parse(words)
    except UsageError:
        return False
    except SystemExit as end:
        return end.code == 0  # after a help
    return True


def shown() -> list[tuple[str, Words]]:
    """Return each simple command that a page shows, on a console or in a sentence, and where."""
    said = [
        (here(path), code.replace("\\|", "|").replace("KIND", "redis").replace("SHELL", "bash"))
        for path in GUIDES
        for code in inline_code(path.read_text("utf-8"))
        if re.match(r"slproxy (?!COMMAND|is )|SLPROXY_\w+=", code)
    ]
    return [(where, each) for where, command in (*commands(), *said) for each in simple_commands(command)]


def test_each_command_shown_is_one_that_the_program_takes() -> None:
    ours = [(where, each.words[1:]) for where, each in shown() if each.words[:1] == ["slproxy"]]
    assert len(ours) > 80
    assert [(where, *words) for where, words in ours if not is_taken(words)] == []


@pytest.mark.parametrize("words", ["serve --prot 1", "stats", "store mv --to redis", "store move --to disk"])
def test_a_command_that_the_program_does_not_take_would_be_seen(words: str) -> None:
    assert not is_taken(words.split())


def test_each_make_target_shown_is_there() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    made = {code for path in GUIDES for code in inline_code(path.read_text("utf-8")) if code.startswith("make ")}
    made |= {" ".join(each.words) for _, each in shown() if each.words[:1] == ["make"]}
    assert {"make demo", "make test"} <= made
    assert [each for each in made if each.split()[1] not in targets] == []


# Named as what a person may have written.
MISSPELT = {"SALESLOFT_APIKEY"}


def known_variables() -> set[str]:
    client = {name.upper() for name in client_schema("name")}
    told = {"SALESLOFT_BASE_URL", "SLPROXY_URL", "SLPROXY_KEY"}
    return {*VARIABLES, *META, *told, *(f"SLPROXY_CLIENT__NAME__{name}" for name in (*client, "KEY_FILE"))}


def test_each_variable_named_is_one_that_counts() -> None:
    known, wrong = known_variables(), []
    for path in GUIDES:
        for name in re.findall(r"\b(?:SLPROXY|SALESLOFT)_[A-Z_]+[A-Z]\b", path.read_text("utf-8")):
            plain = re.sub(r"SLPROXY_CLIENT__[A-Z]+__", "SLPROXY_CLIENT__NAME__", name)
            if plain not in known and name not in MISSPELT:
                wrong.append((here(path), name))
    assert wrong == []


def test_each_setting_named_is_there() -> None:
    sections = {key.partition(".")[0] for key in SCHEMA}
    named = {
        (here(path), found[0])
        for path in GUIDES
        for code in inline_code(path.read_text("utf-8"))
        if (found := re.match(r"(\w+)\.\w+(?= =|$)", code)) and found[1] in sections
    }
    assert len(named) > 50
    assert [each for each in named if each[1] not in SCHEMA] == []


def test_each_command_is_in_the_table_of_commands() -> None:
    rows = [re.sub(r"`slproxy (.*)`", r"\1", command) for command, _ in table("commands.md", "All of them")]
    assert [re.sub(r" [-A-Z].*", "", row) for row in rows] == [command.name for command in COMMANDS]


# What the examples say that they print


def plain(text: str) -> str:
    """Return a text less what is another each time: numbers, and ids of requests."""
    return re.sub(r"\d+", "N", re.sub(r'(?<="request_id": ")[^"]+', "ID", text))


def printed(page: str, command: str) -> list[str]:
    """Return the lines that a page says a command prints, less what is another each time."""
    (found,) = {
        output
        for each in of("console")
        if here(each.page) == page
        for shown_command, output in each.commands()
        if shown_command.split("  #")[0].rstrip() == command and output
    }
    return plain(found).splitlines()


def requests() -> list[tuple[str, str, str]]:
    """Return the commands that ask a proxy with nothing but a path, with what they print; and the page."""
    return [
        (here(each.page), command, output)
        for each in of("console")
        for command, output in each.commands()
        if re.match(r"curl .*localhost:8642/", command) and "$(" not in command
    ]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
async def test_each_request_shown_gets_what_the_page_says(tmp_path: Path) -> None:
    assert len(requests()) > 5
    async with program("serve", "--sandbox", home=tmp_path, env={"SLPROXY_LISTEN__PORT": "0"}) as server:
        for page, command, output in requests():
            asked = command.replace("localhost:8642", server.url.removeprefix("http://"))
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", asked.replace("curl ", "curl --disable -sS -w '%{stderr}%{http_code}' ", 1)),
                env=environment(tmp_path),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate()
            said = re.search(r'# (\d{3}),|"status": (\d{3}),', f"{command}\n{output}")
            assert err.decode() == (said[1] or said[2] if said else "200"), (page, command)
            assert set(plain(output).splitlines()) <= set(plain(out.decode()).splitlines()), (page, command)


async def test_the_demo_prints_what_the_readme_says(tmp_path: Path) -> None:
    env = {"SLPROXY_LISTEN__PORT": "0", "SLPROXY_LOG__FORMAT": "pretty"}
    async with program("serve", "--sandbox", home=tmp_path, env=env) as server:
        await verified(server)
        assert sorted(plain(server.output).splitlines()) == sorted(printed("README.md", "make demo"))


async def test_serve_prints_what_the_readme_says(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        env = oauth(sandbox, SLPROXY_STORE__ENCRYPTION="off", SLPROXY_LOG__FORMAT="pretty")
        async with program("serve", home=tmp_path, env=env) as server:
            await verified(server)
            output = server.output
    output = output.replace(sandbox.url, "https://api.salesloft.com").replace(
        str(tmp_path / "state"), "/home/jane/.local/state"
    )
    assert set(printed("README.md", "slproxy serve")) <= set(plain(output).splitlines())


async def test_login_prints_what_the_pages_say(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        async with interactive("login", home=tmp_path, env=env) as login:
            url = await login.url()
            assert await login.end(f"{await allowed(url)}\n") == 0
    assert login.out.splitlines() == printed("docs/laptop.md", "slproxy login")
    first, empty, address = printed("docs/ssh.md", "slproxy login")
    shown_url = address.strip().removeprefix("https://accounts.salesloft.com").partition("…")[0]
    assert (first, empty) == tuple(login.err.splitlines()[:2])
    assert url.startswith(sandbox.url + shown_url)


async def test_the_fake_salesloft_prints_the_exports_that_its_page_has(tmp_path: Path) -> None:
    exports = {
        f"export {name}={value}".replace("8643", "PORT")
        for where, each in shown()
        if where == "docs/sandbox.md"
        for name, value in each.variables.items()
    }
    assert len(exports) == 4
    async with program("sandbox", "--port", "0", home=tmp_path) as server:
        port = server.url.rpartition(":")[2]
        assert exports <= {line.strip().replace(port, "PORT") for line in server.errors}
