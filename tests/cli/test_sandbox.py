"""``slproxy sandbox``: what its flags take, and what it logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import KEY, run_here
from tests.support.programs import program, run
from tests.support.raw_http import get, raw
from tests.support.waiting import until

NUMBERS = ("", " ", "nan", "inf", "-inf", "-1", "0", "1e999", "1_0", "٣", "x", "9" * 400)
SENSELESS = {
    "--port": [each for each in NUMBERS if each != "0"] + ["65536", "99999999", "8643.0"],
    "--budget": [*NUMBERS, "1.5", "1000001"],
    "--token-lifetime": [*NUMBERS, "0.0", "0.5", "31536001"],
    "--host": ["", " ", "a b", "\n", "ä", KEY, "a..b", ".a", "a" * 64],
    "--client-id": ["", " ", "a b", "ü", "a\tb", KEY],
    "--redirect-uri": [
        "",
        "x",
        "/callback",
        "ftp://h/c",
        "http://",
        "http:///c",
        "http://h/c#f",
        "http://h/a b",
        "http://h:x/",
        "http://h:65536/",
    ],
    "--rotation": ["", "never"],
}


@pytest.mark.parametrize(("flag", "value"), [(flag, value) for flag, values in SENSELESS.items() for value in values])
async def test_a_flag_that_makes_no_sense_is_refused_before_anything_listens(
    tmp_path: Path, flag: str, value: str
) -> None:
    code, out, err = await run_here("sandbox", f"{flag}={value}", home=tmp_path)
    assert (code, out) == (2, "")
    assert f"argument {flag}: " in err
    assert "Traceback" not in err
    assert KEY not in err, "a real one"


async def test_the_flag_that_makes_no_sense_may_be_one_of_several(tmp_path: Path) -> None:
    uris = ["--redirect-uri", "http://localhost:0/callback", "--redirect-uri", "nowhere"]
    code, _, err = await run_here("sandbox", *uris, home=tmp_path)
    assert (code, "argument --redirect-uri: " in err) == (2, True)


@pytest.mark.parametrize(
    ("host", "said"),
    [("192.0.2.1", "no such address"), ("no-such-name.invalid", "no such address"), ("999.1.1.1", "no such address")],
)
async def test_a_host_of_another_machine_is_told(tmp_path: Path, host: str, said: str) -> None:
    code, _, err = await run("sandbox", "--host", host, home=tmp_path)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


async def test_it_logs_each_request_without_its_query(tmp_path: Path) -> None:
    async with program("sandbox", "--port", "0", "--token-lifetime", "2.5", home=tmp_path) as sandbox:
        await raw(sandbox.url, get("/v2/people.json?email_addresses=jane@company.com"))
        await raw(sandbox.url, get("/_sandbox/requests"))
        lines = sandbox.errors
        await until(lambda: sum(line.startswith("{") for line in lines) == 2)
        assert await sandbox.stop() == 0
    logged = [json.loads(line) for line in sandbox.errors if line.startswith("{")]
    assert [(each["method"], each["path"], each["status"]) for each in logged] == [
        ("GET", "/v2/people.json", 401),
        ("GET", "/_sandbox/requests", 200),
    ]
    assert "jane" not in sandbox.output


async def test_it_logs_a_reply_that_it_cut_off_as_such(tmp_path: Path) -> None:
    async with program("sandbox", "--port", "0", home=tmp_path) as sandbox:
        await until(lambda: any("SALESLOFT_API_KEY=" in line for line in sandbox.errors))
        key = next(line.rpartition("=")[2] for line in sandbox.errors if "SALESLOFT_API_KEY=" in line)
        fault = get("/v2/people.json", f"Authorization: Bearer {key}", "X-Sandbox-Fault: reset")
        with pytest.raises((ConnectionError, EOFError)):
            await raw(sandbox.url, fault)
        await until(lambda: any(line.startswith("{") for line in sandbox.errors))
    (logged,) = [json.loads(line) for line in sandbox.errors if line.startswith("{")]
    assert (logged["path"], logged["ended"]) == ("/v2/people.json", "cut off")
