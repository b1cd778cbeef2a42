"""dlt and Singer, by the recipes of docs/data.md as they stand there: through the proxy, from the sandbox into DuckDB.

``make data`` runs them; they are large, and a plain run of the tests does without.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from slproxy.pace.costs import page_cost
from slproxy.sandbox import Sandbox
from slproxy.sandbox.data.definition import definition
from tests.support import programs
from tests.support.commands import pointed_at
from tests.support.docs import blocks, section
from tests.support.programs import environment
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.salesloft import ApiClient
from tests.support.sandboxes import running_sandbox
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.heavy

PER_PAGE = 100
QUERY = (
    "import duckdb, json, sys\n"
    "print(json.dumps(duckdb.connect(sys.argv[1], read_only=True).sql(sys.argv[2]).fetchall(), default=str))\n"
)


@pytest.fixture
def loaders(pytestconfig: pytest.Config) -> Path:
    """Return the folder with the programs."""
    venv = pytestconfig.getoption("--data")
    if venv is None:
        pytest.skip("with --data, as make data has it")
    return (Path(venv) / "bin").absolute()


@dataclass
class Warehouse:
    """A folder with a recipe in it, and in the end a database; and the programs that work there."""

    home: Path
    bin: Path

    def environment(self, **variables: str) -> dict[str, str]:
        """Return one in which dlt stays in this folder and tells nobody about itself."""
        own = {
            "PATH": f"{self.bin}:{environment(self.home)['PATH']}",
            "PYTHONWARNINGS": "default",
            "DLT_DATA_DIR": str(self.home / "dlt"),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "HTTPS_PROXY": "http://127.0.0.1:9",  # nor does anything else leave this machine
        }
        return environment(self.home, **own, **variables)

    async def finished(self, *command: str, **variables: str) -> tuple[int, str, str]:
        """Run a command to its end; return exit code, standard output and standard error."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.home,
            env=self.environment(**variables),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def run(self, *command: str, **variables: str) -> str:
        """Run a command that must succeed; return what it printed."""
        code, out, err = await self.finished(*command, **variables)
        assert code == 0, err
        return out

    async def select(self, query: str) -> list[list[object]]:
        """Return the rows of a query in the one database here."""
        (database,) = self.home.glob("*.duckdb")
        rows = json.loads(await self.run(str(self.bin / "python"), "-c", QUERY, str(database), query))
        assert isinstance(rows, list)
        return rows

    async def ids(self, table: str) -> list[object]:
        """Return the ids in a table, in order, each as often as it is there."""
        return [key for (key,) in await self.select(f"select id from crm.{table} order by id")]


@pytest.fixture
def warehouse(loaders: Path, tmp_path: Path) -> Warehouse:
    # The name of the scripts, which dlt imports for that.
    home = tmp_path / "load"
    home.mkdir()
    return Warehouse(home, loaders)


@asynccontextmanager
async def sandboxed(**options: object) -> AsyncIterator[tuple[Sandbox, str]]:
    """Run a sandbox and a proxy before it; give both, the proxy by its address."""
    async with running_sandbox(None, **options) as sandbox, proxy(settings_for(sandbox.url)) as app:
        yield sandbox, app.urls[0]


def held(sandbox: Sandbox, collection: str) -> dict[int, dict[str, object]]:
    """Return all that the sandbox has of something, by id and in its order."""
    found: dict[int, dict[str, object]] = {}
    for page in range(1, 100):
        rows = ApiClient(sandbox).rows(f"/v2/{collection}?per_page={PER_PAGE}&page={page}")
        for row in rows:
            assert isinstance(row["id"], int)
            found[row["id"]] = row
        if len(rows) < PER_PAGE:
            break
    return {key: found[key] for key in sorted(found)}


def renamed(sandbox: Sandbox, person: int, name: str) -> None:
    ApiClient(sandbox).row("PUT", f"/v2/people/{person}", document={"first_name": name})


def queries(sandbox: Sandbox, path: str) -> list[dict[str, list[str]]]:
    """Return the queries of all requests for a path that came by the proxy, which is who knows the token."""
    for request in sandbox.requests:
        assert [value for name, value in request.headers if name.lower() == "authorization"] == [f"Bearer {API_KEY}"]
    return [parse_qs(urlsplit(each.target).query) for each in sandbox.requests if urlsplit(each.target).path == path]


def test_a_large_table_costs_what_the_page_says() -> None:
    cost = sum(page_cost(f"page={page}") for page in range(1, 100_000 // PER_PAGE + 1))
    text = " ".join(section("data.md", "Pages and their cost").split())
    assert f"a table of 100,000 rows costs {cost:,} by page numbers" in text


def test_the_lists_that_have_the_filter_are_those_of_the_definition() -> None:
    named = section("data.md", "Pages and their cost").partition("The published definition")[2]
    filtered = {
        operation.path.removeprefix("/v2/")
        for operation in definition().operations
        if operation.method == "GET" and "updated_at" in operation.query
    }
    assert set(re.findall(r"`([\w/]+)`", named)) == filtered


# dlt


def dlt_script(warehouse: Warehouse, *, edit: Callable[[str], str] = lambda text: text) -> tuple[str, str]:
    """Write the script of the page; return the command that runs it."""
    (text,) = blocks("data.md", "dlt", "python")
    (warehouse.home / "load.py").write_text(edit(text))
    return str(warehouse.bin / "python"), "load.py"


async def test_dlt_loads_everything_and_then_what_has_changed(warehouse: Warehouse) -> None:
    async with sandboxed() as (sandbox, url):
        load = dlt_script(warehouse)

        await warehouse.run(*load, SALESLOFT_BASE_URL=url)

        people = held(sandbox, "people")
        assert len(people) > PER_PAGE
        emails = await warehouse.select("select id, email_address from crm.people order by id")
        assert emails == [[key, person["email_address"]] for key, person in people.items()]
        assert await warehouse.ids("accounts") == list(held(sandbox, "accounts"))
        assert {query["page"][0] for query in queries(sandbox, "/v2/people")} == {"1"}

        renamed(sandbox, 7, "Grace")
        sandbox.requests.clear()
        shutil.rmtree(warehouse.home / "dlt")
        await warehouse.run(*load, SALESLOFT_BASE_URL=url)

        newest = "_dlt_load_id = (select max(load_id) from crm._dlt_loads)"
        assert await warehouse.select(f"select id, first_name from crm.people where {newest}") == [[7, "Grace"]]
        assert await warehouse.select("select count(*) from crm.people") == [[len(people)]]
        assert (len(queries(sandbox, "/v2/people")), len(queries(sandbox, "/v2/accounts"))) == (1, 1)


async def test_dlt_misses_no_row_where_another_changes_meanwhile(warehouse: Warehouse) -> None:
    """The first row moves to the end once the first page is read, and so a row of the second page into the first."""

    def answered(method: str, target: str, status: int | None, seconds: float) -> None:
        if target.startswith("/v2/people") and len(queries(sandbox, "/v2/people")) == 1:
            renamed(sandbox, 1, "Grace")

    async with sandboxed(answered=answered) as (sandbox, url):
        await warehouse.run(*dlt_script(warehouse), SALESLOFT_BASE_URL=url)

        assert await warehouse.ids("people") == list(held(sandbox, "people"))
    assert await warehouse.select("select first_name from crm.people where id = 1") == [["Grace"]]


async def test_dlt_loads_more_rows_of_the_same_time_than_a_page_holds(warehouse: Warehouse) -> None:
    """By page numbers, which are needed only there: docs/data.md, Pages and their cost."""
    now = time.time()
    async with sandboxed(clock=lambda: now) as (sandbox, url):
        for number in range(250):
            ApiClient(sandbox).row("POST", "/v2/people", document={"email_address": f"{number}@bulk.example"})

        await warehouse.run(*dlt_script(warehouse), SALESLOFT_BASE_URL=url)

        assert await warehouse.ids("people") == list(held(sandbox, "people"))
        assert [query["page"][0] for query in queries(sandbox, "/v2/people")] == ["1", "1", "1", "2", "3"]


async def test_dlt_loads_a_list_that_has_no_filter_by_time(warehouse: Warehouse) -> None:
    async with sandboxed() as (sandbox, url):
        task = {
            "user_id": 1,
            "person_id": 1,
            "task_type": "general",
            "due_date": "2030-01-01",
            "current_state": "scheduled",
        }
        for number in range(230):
            ApiClient(sandbox).row("POST", "/v2/tasks", document=task | {"subject": str(number)})
        load = dlt_script(warehouse, edit=lambda text: text.replace('["people", "accounts"]', '["tasks", "users"]'))

        for pages in (["1", "1", "2", "3"], ["1", "2", "3"]):
            sandbox.requests.clear()
            await warehouse.run(*load, SALESLOFT_BASE_URL=url)

            assert [query["page"][0] for query in queries(sandbox, "/v2/tasks")] == pages
            assert await warehouse.ids("tasks") == list(held(sandbox, "tasks"))
            assert await warehouse.ids("users") == list(held(sandbox, "users"))


async def test_the_timeout_of_the_script_is_the_one_that_dlt_has(warehouse: Warehouse) -> None:
    async with sandboxed() as (sandbox, url):
        sandbox.fault("slow=5")
        load = dlt_script(warehouse, edit=lambda text: text.replace("180", "0.25"))

        code, _, err = await warehouse.finished(*load, SALESLOFT_BASE_URL=url, RUNTIME__REQUEST_MAX_ATTEMPTS="1")

    assert (code, "read timeout=0.25" in err) == (1, True), err


async def test_dlt_finds_the_proxy_of_slproxy_run(warehouse: Warehouse) -> None:
    async with running_sandbox() as sandbox:
        env = warehouse.environment() | pointed_at(sandbox.url, SALESLOFT_API_KEY=API_KEY)
        (line,) = blocks("data.md", "Rules and a share of the budget", "console")
        prompt, slproxy, *arguments = shlex.split(line)
        assert (prompt, slproxy, arguments[-2:]) == ("$", "slproxy", ["python", "load.py"])
        dlt_script(warehouse)

        code, _, err = await programs.run(*arguments, home=warehouse.home, env=env)

        assert code == 0, err
        assert await warehouse.ids("people") == list(held(sandbox, "people"))
        assert queries(sandbox, "/v2/people")


# Singer


def singer_script(warehouse: Warehouse, url: str) -> tuple[str, ...]:
    """Write the files of the page; return the command of a load."""
    for name, text in zip(("tap", "people", "target"), blocks("data.md", "Singer", "json"), strict=True):
        (warehouse.home / f"{name}.json").write_text(text.replace("http://localhost:8642", url))
    (text,) = blocks("data.md", "Singer", "bash")
    (warehouse.home / "load.sh").write_text(text)
    return "bash", "load.sh"


async def test_singer_loads_everything_and_then_what_has_changed(warehouse: Warehouse) -> None:
    async with sandboxed() as (sandbox, url):
        load = singer_script(warehouse, url)

        await warehouse.run(*load)

        people = held(sandbox, "people")
        emails = await warehouse.select("select id, email_address from crm.people order by id")
        assert emails == [[key, person["email_address"]] for key, person in people.items()]
        assert [query.get("page") for query in queries(sandbox, "/v2/people")] == [None, ["2"]]

        renamed(sandbox, 7, "Grace")
        latest = [person["updated_at"] for person in people.values()]
        for bookmark in (max(map(str, latest)), held(sandbox, "people")[7]["updated_at"]):
            sandbox.requests.clear()
            await warehouse.run(*load)
            assert [query["updated_at[gte]"] for query in queries(sandbox, "/v2/people")] == [[bookmark]]
            assert await warehouse.select("select first_name from crm.people where id = 7") == [["Grace"]]
        assert await warehouse.select("select count(*) from crm.people") == [[len(people)]]


async def test_a_load_of_singer_that_fails_keeps_the_bookmark(warehouse: Warehouse) -> None:
    async with sandboxed() as (_, url):
        load = singer_script(warehouse, url)
        bookmark = '{"bookmarks": {}}'
        (warehouse.home / "state.json").write_text(bookmark)

        for broken in ("tap", "target"):
            file = warehouse.home / f"{broken}.json"
            whole = file.read_text()
            file.write_text("not JSON")
            code, _, _ = await warehouse.finished(*load)
            file.write_text(whole)

            assert code != 0
            assert (warehouse.home / "state.json").read_text() == bookmark
