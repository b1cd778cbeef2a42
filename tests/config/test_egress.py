"""The egress proxy: which variable names it, and who is reached without it, as curl has it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from slproxy.config import Egress, effective
from slproxy.config.egress import exempts, from_environment, parsed_egress
from slproxy.errors import ConfigError
from tests.support.listener import Listener
from tests.support.settings import SECRET, loaded, refusal

PROXY = "http://127.0.0.1:PORT"
# In the brackets of a URL, as the settings have a host.
V6 = "[2001:db8::1]"

# Host, NO_PROXY, and whether the host is reached directly.
EXEMPT = [
    ("api.test", "", False),
    ("api.test", "api.test", True),
    ("api.test", "API.Test", True),
    ("API.test", "api.test", True),
    ("api.test", ".api.test", True),
    ("api.test", "test", True),
    ("api.test", ".test", True),
    ("api.test", "test.", True),
    ("api.test.", "api.test", True),
    ("api.test", "api.test.", True),
    ("api.test", "est", False),
    ("api.test", "www.api.test", False),
    ("api.test", "..test", False),
    ("api.test", ".", False),
    ("api.test", "*", True),
    ("api.test", "*,x", False),
    ("api.test", "x,*", False),
    ("api.test", "*.test", False),
    ("api.test", "x, api.test", True),
    ("api.test", "x,,api.test", True),
    ("api.test", " api.test ", True),
    ("api.test", "x;api.test", False),
    ("api.test", "api.test:443", False),
    ("api.test", "10.0.0.0/8", False),
    ("10.1.2.3", "10.1.2.3", True),
    ("10.1.2.3", "10.0.0.0/8", True),
    ("10.1.2.3", "10.1.2.0/24", True),
    ("10.1.2.3", "10.1.3.0/24", False),
    ("10.1.2.3", "10.1.2.3/32", True),
    ("10.1.2.3", "10.1.2.3/33", False),
    ("10.1.2.3", "10.0.0.0/0", False),
    ("10.1.2.3", "10.1.2.3/x", True),
    ("10.1.2.3", "10.1.2", False),
    ("10.1.2.3", "10.1.2.3:443", False),
    ("10.1.2.3", "2001:db8::/32", False),
    (V6, "2001:db8::1", True),
    (V6, V6, False),
    (V6, "10.0.0.0/8", False),
]
# What curl of before 8.0 takes for names, against its own manual; and separators that it has given up since.
EXEMPT_BY_OURS_ALONE = [
    (V6, "2001:db8::/32", True),
    (V6, "2001:DB8:0::1", True),
    (V6, "2001:db9::/32", False),
    ("api.test", "x api.test", True),
]


@pytest.mark.parametrize(("host", "listed", "is_direct"), EXEMPT + EXEMPT_BY_OURS_ALONE)
def test_no_proxy_names_hosts_domains_and_networks(host: str, listed: str, is_direct: bool) -> None:
    assert exempts(listed, host) == is_direct
    egress = from_environment({"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": listed}, [host])
    assert (egress.proxy_for(host) is None) == is_direct
    assert egress.why(host) == ("NO_PROXY names it" if is_direct else "HTTPS_PROXY")


# The environment, and the Proxy-Authorization that the proxy gets; None where it gets nothing at all.
NAMED: list[tuple[Mapping[str, str], str | None]] = [
    ({}, None),
    ({"HTTPS_PROXY": PROXY}, ""),
    ({"https_proxy": PROXY}, ""),
    ({"HTTPS_PROXY": PROXY, "https_proxy": "http://127.0.0.1:1"}, None),
    ({"HTTPS_PROXY": PROXY, "https_proxy": ""}, ""),
    ({"ALL_PROXY": PROXY}, ""),
    ({"all_proxy": PROXY, "ALL_PROXY": "http://127.0.0.1:1"}, ""),
    ({"all_proxy": PROXY, "HTTPS_PROXY": "http://127.0.0.1:1"}, None),
    ({"HTTP_PROXY": PROXY}, None),
    ({"http_proxy": PROXY}, None),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "test", "no_proxy": "other.test"}, ""),
    ({"HTTPS_PROXY": PROXY, "NO_PROXY": "test", "no_proxy": ""}, None),
    ({"HTTPS_PROXY": "127.0.0.1:PORT"}, ""),
    ({"HTTPS_PROXY": "localhost:PORT"}, ""),
    ({"HTTPS_PROXY": "HTTP://127.0.0.1:PORT/path?query"}, ""),
    ({"HTTPS_PROXY": "http://[::ffff:127.0.0.1]:PORT"}, ""),
    ({"HTTPS_PROXY": "http://u:p%40@127.0.0.1:PORT"}, "Basic dTpwQA=="),
    ({"HTTPS_PROXY": "u@127.0.0.1:PORT"}, "Basic dTo="),
    ({"HTTPS_PROXY": "http://u:@127.0.0.1:PORT"}, "Basic dTo="),
    ({"HTTPS_PROXY": "http://:p@127.0.0.1:PORT"}, "Basic OnA="),
    ({"HTTPS_PROXY": "http://@127.0.0.1:PORT"}, "Basic Og=="),
    ({"HTTPS_PROXY": "http://u:%zz@127.0.0.1:PORT"}, "Basic dToleno="),
]


@pytest.mark.parametrize(("environ", "credentials"), NAMED)
def test_the_first_variable_that_is_not_empty_names_the_proxy(
    environ: Mapping[str, str], credentials: str | None
) -> None:
    environ = {name: value.replace("PORT", "3128") for name, value in environ.items()}
    proxy = from_environment(environ, ["api.test"]).proxy_for("api.test")
    if proxy is None or proxy.port == 1:
        assert credentials is None
    else:
        assert (proxy.credentials.reveal() if proxy.credentials else "") == credentials
        assert proxy.name.endswith(":3128")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_reads_these_variables_alike() -> None:
    """The real curl, which finds that the proxy refuses or that there is none; nothing leaves this machine."""
    heads: dict[str, str] = {}

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        case = head.partition("x-case: ")[2].partition("\r")[0]
        heads[case] = next((line for line in head.split("\r\n") if line.startswith("proxy-authorization")), "")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    turns = asyncio.Semaphore(4)

    async def ask(case: str, host: str, environ: Mapping[str, str], port: int) -> str | None:
        environ = {name: value.replace("PORT", str(port)) for name, value in environ.items()}
        # The name of the case goes to the proxy only; without one, curl connects to a port where nobody listens.
        options = ["--proxy-header", f"X-Case: {case}", "--connect-to", "::127.0.0.1:1", "--disable", "-sm", "9"]
        async with turns:
            process = await asyncio.create_subprocess_exec(
                "curl", *options, f"https://{host}/", env={"PATH": os.environ["PATH"], **environ}
            )
            await process.wait()
        return heads.get(case)

    async with Listener(refuse) as proxy:
        lists = [
            ask(f"list {number}", host, {"HTTPS_PROXY": PROXY, "NO_PROXY": listed}, proxy.port)
            for number, (host, listed, _) in enumerate(EXEMPT)
        ]
        names = [ask(f"name {number}", "api.test", environ, proxy.port) for number, (environ, _) in enumerate(NAMED)]
        exempt, named = await asyncio.gather(*lists), await asyncio.gather(*names)
    assert [(*case[:2], told is None) for case, told in zip(EXEMPT, exempt, strict=True)] == EXEMPT
    wanted = [credentials and f"proxy-authorization: {credentials}".lower() for _, credentials in NAMED]
    assert [(case[0], told) for case, told in zip(NAMED, named, strict=True)] == [
        (case[0], want) for case, want in zip(NAMED, wanted, strict=True)
    ]


@pytest.mark.parametrize(
    ("url", "shown", "port"),
    [
        ("http://proxy.test", "http://proxy.test:1080", 1080),
        ("https://Proxy.test", "https://proxy.test:443", 443),
        ("proxy.test:", "http://proxy.test:1080", 1080),
        (f"jane:{SECRET}@proxy.test:3128", "http://***@proxy.test:3128", 3128),
        ("http://[2001:DB8:0::1]:3128/", "http://[2001:db8::1]:3128", 3128),
    ],
)
def test_a_proxy_is_shown_without_its_credentials(url: str, shown: str, port: int, tmp_path: Path) -> None:
    by_setting = loaded(tmp_path, env={"SLPROXY_UPSTREAM__PROXY": url})
    by_variable = loaded(tmp_path, env={"HTTPS_PROXY": url})
    rows = [next(row for row in effective(each) if row.key == "upstream.proxy") for each in (by_setting, by_variable)]
    assert [(row.value, row.plain) for row in rows] == [(shown, shown)] * 2
    assert [row.origin for row in rows] == ["env SLPROXY_UPSTREAM__PROXY", "env HTTPS_PROXY"]
    for settings in (by_setting, by_variable):
        proxy = settings.upstream.proxy.proxy_for("api.salesloft.com")
        assert proxy is not None
        assert proxy.port == port
        assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("socks5h://proxy.test:1080", "socks5h is no kind of proxy"),
        ("ftp://proxy.test", "ftp is no kind of proxy"),
        (f"http://jane:{SECRET}@corp@proxy.test:3128", "is no URL of a proxy"),
        (f"http://jane:{SECRET}#@proxy.test:3128", "is no URL of a proxy"),
        ("http://proxy.test:99999", "99999 is no port"),
        ("http://", "is no URL of a proxy"),
        ("http://[::zz]:1", "is no URL of a proxy"),
        ("http://[1:2]:1", "holds no host"),
        ("http://pro xy.test", "is no URL of a proxy"),
        ("on", None),
        ("Off", None),
        ("ENV", None),
    ],
)
def test_what_is_no_proxy_stops_the_start_and_is_not_shown(url: str, said: str | None, tmp_path: Path) -> None:
    if said is None:
        assert isinstance(loaded(tmp_path, env={"SLPROXY_UPSTREAM__PROXY": url}).upstream.proxy, Egress)
        return
    assert f"upstream.proxy (env SLPROXY_UPSTREAM__PROXY): {said}" in (
        message := refusal(tmp_path, env={"SLPROXY_UPSTREAM__PROXY": url})
    )
    assert SECRET not in message
    message = refusal(tmp_path, env={"ALL_PROXY": url})
    assert f"ALL_PROXY: {said}" in message
    assert "upstream.proxy" in message
    # Where it would not be used, nobody minds.
    assert loaded(tmp_path, env={"ALL_PROXY": url, "no_proxy": "salesloft.com"}).upstream.proxy.proxy is None
    assert loaded(tmp_path, env={"ALL_PROXY": url, "SLPROXY_UPSTREAM__PROXY": "off"}).upstream.proxy.proxy is None
    assert loaded(tmp_path, env={"ALL_PROXY": url}, sandbox=True).upstream.proxy == Egress()


def test_a_mounted_file_may_hold_the_url_of_a_proxy(tmp_path: Path) -> None:
    (tmp_path / "proxy").write_text(f"http://jane:{SECRET}@proxy.test:3128\n")
    settings = loaded(tmp_path, env={"SLPROXY_UPSTREAM__PROXY_FILE": "proxy"})
    assert str(settings.upstream.proxy) == "http://***@proxy.test:3128"
    (tmp_path / "proxy").write_text(f"{SECRET} is no proxy")
    assert "is no URL of a proxy" in refusal(tmp_path, env={"SLPROXY_UPSTREAM__PROXY_FILE": "proxy"})


def test_the_environment_gives_way_to_the_setting_and_a_found_env_file_is_no_environment(tmp_path: Path) -> None:
    environ = {"HTTPS_PROXY": "http://env.test:1", "SALESLOFT_API_KEY": SECRET}
    for given, name in [
        ({}, "env.test:1"),
        ({"SLPROXY_UPSTREAM__PROXY": "http://set.test:2", "NO_PROXY": "*"}, "set.test:2"),
        ({"SLPROXY_UPSTREAM__PROXY": "off"}, None),
    ]:
        proxy = loaded(tmp_path, env=environ | given).upstream.proxy.proxy_for("api.salesloft.com")
        assert (proxy and proxy.name) == name
    dotenv = "HTTPS_PROXY=http://stranger.test:3128\nNO_PROXY=*\n"
    proxy = loaded(tmp_path, dotenv=dotenv, env=environ).upstream.proxy.proxy_for("api.salesloft.com")
    assert proxy is not None
    assert loaded(tmp_path, dotenv=dotenv).upstream.proxy == Egress()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "api.localhost"])
def test_nothing_on_this_machine_is_reached_through_a_proxy(host: str) -> None:
    for egress in (parsed_egress("http://proxy.test:3128"), from_environment({"ALL_PROXY": PROXY[:-5]}, ["a.test"])):
        assert egress.proxy_for(host) is None
        assert egress.proxy_for("a.test") is not None
        assert egress.why(host) == "it is this machine"


def test_a_message_of_a_wrong_proxy_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="socks5 is no kind of proxy") as told:
        parsed_egress("socks5://proxy.test")
    assert "speak HTTP" in told.value.hint
