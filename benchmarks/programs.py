"""The programs that are measured and compared, each a process of its own on loopback.

What is measured keeps to one core, what asks and answers it to another, so that neither takes the other's time. Envoy
and nginx are those of Python's index (``pip install --group witness``), and are left out where they are not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, Popen

import trustme

ROOT = Path(__file__).resolve().parent.parent
MEASURED, BESIDE = 0, 1  # cores
# Under valgrind a start takes most of it.
START_TIMEOUT = 120.0
API_KEY = "ak_" + "5a" * 32

_SERVE = "from slproxy.cli import main; main(['serve'])"
_WITHOUT_UVLOOP = f"import sys; sys.modules['uvloop'] = None; {_SERVE}"


@dataclass(frozen=True)
class Program:
    """A program that runs, and where it listens."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def peak_memory(self) -> int:
        """Return the largest resident size so far, in bytes (proc_pid_status(5), VmHWM)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def on_core(core: int) -> list[str]:
    """Return what to put before a command, so that it keeps to a core where there are two."""
    return ["taskset", "-c", str(core)] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else []


def add_checkouts(parser: argparse.ArgumentParser) -> None:
    """Let checkouts of other commits be measured in the same turns, each under the name of its folder."""
    parser.add_argument(
        "--beside", type=Path, action="append", default=[], metavar="FOLDER", help="also measure this checkout"
    )


def checkouts(beside: Sequence[Path]) -> dict[str, Path]:
    """Return the folders of slproxy that are measured, by name; this one comes last."""
    return {**{folder.resolve().name: folder.resolve() for folder in beside}, "slproxy": ROOT}


def certificate_for(name: str, folder: Path) -> tuple[Path, Path]:
    """Make a certificate with its key, and return its file and that of the CA."""
    authority, certificate, ca = trustme.CA(), folder / "certificate.pem", folder / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(certificate)
    return certificate, ca


def loops() -> dict[str, bool]:
    """Return whether to use uvloop, by what the name of a program then ends in."""
    return {"": False, **({" uvloop": True} if find_spec("uvloop") else {})}


def installed(script: str) -> str | None:
    """Return the path of a script of this environment, where it has it."""
    return shutil.which(script, path=sysconfig.get_path("scripts"))


@contextmanager
def running(
    command: list[str],
    port: int,
    *,
    host: str = "127.0.0.1",
    core: int = MEASURED,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """Run a program until the block ends; it listens on ``port``, and knows nothing of this person's settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLPROXY_", "SALESLOFT_"))}
    process = Popen(
        [*on_core(core), *command],
        cwd=cwd,
        env={**clean, "PYTHONHASHSEED": "0", **(env or {})},
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        _wait_for((host, port), process)
        yield Program(port, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(address: tuple[str, int], process: Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
            return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on {address}: {process.args!r}")


def upstream(*, host: str = "127.0.0.1", certificate: Path | None = None) -> contextlib.AbstractContextManager[Program]:
    port = free_port()
    files = [str(certificate)] if certificate else []
    command = [sys.executable, "-m", "benchmarks.upstream", host, str(port), *files]
    return running(command, port, host=host, core=BESIDE)


def bare(origin: str, *, uvloop: bool = False, under: Sequence[str] = ()) -> contextlib.AbstractContextManager[Program]:
    """Run the bare passthrough; ``under`` is the command that runs it, if it is not Python alone."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.bare", origin, str(port), *(["uvloop"] if uvloop else [])]
    return running([*under, *command], port)


def slproxy(
    origin: str, *, uvloop: bool, checkout: Path = ROOT, under: Sequence[str] = (), **settings: str
) -> contextlib.AbstractContextManager[Program]:
    """Run ``slproxy serve`` of a checkout, with everything on that is on by default; ``settings`` by variable."""
    port = free_port()
    env = {
        "SALESLOFT_API_KEY": API_KEY,
        "SLPROXY_UPSTREAM__API_URL": origin,
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": origin,
        "SLPROXY_LISTEN__PORT": str(port),
        "SLPROXY_STORE__KIND": "memory",
        # Higher than any load here, so that pacing does all its work and holds nothing.
        "SLPROXY_PACE__LIMIT": "900000000",
        **{f"SLPROXY_{name}": value for name, value in settings.items()},
    }
    command = [sys.executable, "-c", _SERVE if uvloop else _WITHOUT_UVLOOP]
    return running([*under, *command], port, cwd=checkout, env=env)


def envoy(program: str, upstream_port: int, folder: Path) -> contextlib.AbstractContextManager[Program]:
    """Run Envoy on one thread, with its credential injector and no access log."""
    extensions = "type.googleapis.com/envoy.extensions"
    port = free_port()

    def address(number: int) -> object:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    credential = {
        "@type": f"{extensions}.http.injected_credentials.generic.v3.Generic",
        "credential": {"name": "bearer"},
    }
    injector = {
        "@type": f"{extensions}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {"name": "generic", "typed_config": credential},
    }
    router = {"@type": f"{extensions}.filters.http.router.v3.Router"}
    host = {"name": "api", "domains": ["*"], "routes": [{"match": {"prefix": "/v2/"}, "route": {"cluster": "api"}}]}
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "p",
        "codec_type": "HTTP1",
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [
            {"name": "credential_injector", "typed_config": injector},
            {"name": "router", "typed_config": router},
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(upstream_port)}}]}
    secret = {"name": "bearer", "generic_secret": {"secret": {"inline_string": f"Bearer {API_KEY}"}}}
    cluster = {
        "name": "api",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "api", "endpoints": [endpoint]},
    }
    listener = {"name": "l", "address": address(port), "filter_chains": [chain]}
    resources = {"listeners": [listener], "clusters": [cluster], "secrets": [secret]}
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": resources}))
    return running([program, "-c", str(config), "--concurrency", "1", "--disable-hot-restart"], port)


def nginx(program: str, origin: str, folder: Path) -> contextlib.AbstractContextManager[Program]:
    """Run nginx in one process, with ``proxy_pass`` as it is by default but for kept connections."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"""
daemon off;
master_process off;
pid nginx.pid;
events {{ }}
http {{
  access_log off;
  server {{
    listen 127.0.0.1:{port};
    location /v2/ {{
      proxy_pass {origin};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {API_KEY}";
    }}
  }}
}}
"""
    )
    return running([program, "-e", "stderr", "-p", str(folder), "-c", str(config)], port)
