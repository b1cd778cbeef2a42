"""The Postman collection, as Postman's own runner sends it: through a proxy that runs as a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from slproxy.config import ListenSettings
from tests.support import ROOT, node
from tests.support.pair import LOCAL_KEY
from tests.support.programs import environment, program
from tests.support.sandboxes import running_sandbox

pytestmark = pytest.mark.heavy

FOLDER = ROOT / "postman"
COLLECTION = FOLDER / "slproxy.postman_collection.json"
ENVIRONMENT = FOLDER / "slproxy.postman_environment.json"


@pytest.fixture(scope="session")
def newman() -> Path:
    return node.installed() / "newman"


async def newman_says(
    newman: Path, base_url: str, home: Path, *, collection: Path = COLLECTION
) -> tuple[int, dict[str, object]]:
    """Run a collection against an address; return newman's exit code and its report."""
    report = home / "report.json"
    code, out, err = await node.run(
        newman,
        *("run", str(collection), "--environment", str(ENVIRONMENT), "--env-var", f"baseUrl={base_url}"),
        *("--reporters", "cli,json", "--reporter-json-export", str(report)),
        home=home,
    )
    assert report.exists(), out + err
    run = json.loads(report.read_text())["run"]
    assert isinstance(run, dict)
    return code, run


def requests_in(items: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    """Yield the requests of a collection, through its folders."""
    for item in items:
        if "item" in item:
            inner = item["item"]
            assert isinstance(inner, list)
            yield from requests_in(inner)
        else:
            yield item


def keys_in(document: object) -> Iterator[str]:
    """Yield every key and every name of a header or variable, however deep."""
    if isinstance(document, dict):
        yield from document
        yield str(document.get("key", ""))
        for value in document.values():
            yield from keys_in(value)
    if isinstance(document, list):
        for value in document:
            yield from keys_in(value)


COLLECTED = json.loads(COLLECTION.read_text())
REQUESTS = list(requests_in(COLLECTED["item"]))


async def test_every_request_of_the_collection_passes_its_tests_through_the_proxy(newman: Path, tmp_path: Path) -> None:
    async with program("serve", "--sandbox", "--port", "0", home=tmp_path) as proxy:
        code, run = await newman_says(newman, proxy.url, tmp_path)

    assert run["failures"] == []
    assert code == 0
    executions = run["executions"]
    assert isinstance(executions, list)
    assert [each["item"]["name"] for each in executions] == [each["name"] for each in REQUESTS]
    assert all(each["assertions"] for each in executions)
    sent = {header["key"].lower() for each in executions for header in each["request"]["header"]}
    assert "authorization" not in sent


async def test_the_local_key_is_the_bearer_token_of_the_collection(newman: Path, tmp_path: Path) -> None:
    """And lists may be empty, as those of a new team are."""
    keyed = tmp_path / "keyed.json"
    auth = {"type": "bearer", "bearer": [{"key": "token", "value": LOCAL_KEY, "type": "string"}]}
    text = json.dumps(COLLECTED | {"auth": auth}).replace("=2020-01-01T", "=2999-01-01T")
    keyed.write_text(text)
    env = environment(tmp_path, SLPROXY_LISTEN__KEY=LOCAL_KEY)
    async with program("serve", "--sandbox", "--port", "0", home=tmp_path, env=env) as proxy:
        code, run = await newman_says(newman, proxy.url, tmp_path, collection=keyed)

    assert (code, run["failures"]) == (0, [])


async def test_without_the_proxy_the_collection_fails_since_it_holds_no_token(newman: Path, tmp_path: Path) -> None:
    async with running_sandbox() as sandbox:
        code, run = await newman_says(newman, sandbox.url, tmp_path)

        assert {request.status for request in sandbox.requests if request.target.startswith("/v2/")} == {401}
    assert code == 1
    assert run["failures"] != []


@pytest.mark.parametrize("path", [COLLECTION, ENVIRONMENT], ids=["collection", "environment"])
def test_there_is_no_auth_and_no_secret_in_what_postman_imports(path: Path) -> None:
    names = {name.lower() for name in keys_in(json.loads(path.read_text()))}

    assert not names & {"auth", "authorization", "x-slproxy-key", "token", "access_token", "apikey", "client_secret"}


def test_the_base_url_is_where_the_proxy_listens_by_default() -> None:
    base_url = {"baseUrl": f"http://localhost:{ListenSettings().port}"}
    values = {each["key"]: each["value"] for each in json.loads(ENVIRONMENT.read_text())["values"]}

    assert values == base_url
    assert {each["key"]: each["value"] for each in COLLECTED["variable"]}.items() >= base_url.items()


def test_every_request_goes_to_the_base_url_and_has_tests() -> None:
    for item in REQUESTS:
        request, events = item["request"], item["event"]
        assert isinstance(request, dict)
        assert isinstance(events, list)
        assert request["url"]["raw"].startswith("{{baseUrl}}/")
        assert any("pm.test(" in line for event in events for line in event["script"]["exec"])


def test_the_collection_is_of_the_format_that_postman_imports() -> None:
    assert COLLECTED["info"]["schema"].endswith("/collection/v2.1.0/collection.json")
