"""What a file system may answer to the store's calls, and what is still safe then (docs/filesystems.md, Calls)."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from slproxy.errors import StoreError
from slproxy.store import private_file
from tests.support import ROOT
from tests.support.commands import oauth, sandboxed
from tests.support.programs import environment
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.heavy

# Tries a place out, and prints how that went.
TRY_OUT = """
import asyncio, sys
from pathlib import Path
from slproxy.errors import StoreError
from slproxy.store import FileStore
try:
    asyncio.run(FileStore(Path(sys.argv[1])).try_out())
    print("stored")
except StoreError as error:
    print(error.detail, error.hint)
"""
MOUNTED = "mount its folder instead"
LOCAL = "Set store.path to a folder on a local disk, or use store.kind = redis."
ANSWERS = [
    ("flock", "ENOLCK", 1, ("has no locks (No locks available)", LOCAL)),
    ("flock", "EOPNOTSUPP", 1, ("has no locks", LOCAL)),
    ("flock", "ENOSYS", 1, ("has no locks", LOCAL)),
    ("fsync", "EIO", 1, ("Cannot write", "Check the disk")),
    ("fsync", "EINVAL", 2, ("stored",)),
    ("fsync", "EIO", 2, ("Cannot write", "Check the disk")),
    ("/^rename", "EBUSY", 1, ("Cannot write", MOUNTED)),
    ("/^rename", "EROFS", 1, ("Cannot write", "mounted read-only")),
    ("/^mkdir", "EACCES", 1, ("Cannot", "Check the permissions of the folder and those above it")),
    ("/^unlink", "EBUSY", 1, ("Cannot remove", MOUNTED)),
]


def without(call: str, error: str, when: str) -> list[str]:
    """Return what makes a command's system calls fail."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return [
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:error={error}:when={when}",
    ]


def tried_out(path: Path, call: str, error: str, nth: int) -> str:
    done = subprocess.run(
        [*without(call, error, str(nth)), sys.executable, "-B", "-c", TRY_OUT, str(path)],
        env=environment(path.parent, PYTHONPATH=str(ROOT)),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if "ptrace" in done.stderr:
        pytest.skip("nothing may be traced here")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("call", "error", "nth", "said"), ANSWERS, ids=[f"{a} {b} {c}" for a, b, c, _ in ANSWERS])
def test_what_a_file_system_answers_is_survived_or_told_with_what_helps(
    tmp_path: Path, call: str, error: str, nth: int, said: tuple[str, ...]
) -> None:
    folder = tmp_path / "state"
    told = tried_out(folder / "token.json", call, error, nth)
    for each in said:
        assert each in told, told
    if "no locks" in told:
        assert "permission" not in told
    if folder.exists():
        assert not [each.name for each in folder.iterdir() if not each.name.endswith((".lock", ".trial"))]


async def test_a_login_on_a_file_system_without_locks_ends_before_anybody_is_sent_to_the_browser(
    tmp_path: Path,
) -> None:
    async with sandboxed() as sandbox:
        told = subprocess.run(  # noqa: ASYNC221  # the sandbox is not asked
            [*without("flock", "ENOLCK", "1+"), sys.executable, "-m", "slproxy", "login", "--no-browser"],
            cwd=tmp_path,
            env=environment(tmp_path, **oauth(sandbox)),
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert told.returncode == 1
    assert "has no locks" in told.stderr
    assert "/oauth/authorize" not in told.stderr
    assert "Traceback" not in told.stderr


ME = os.geteuid()
# A user whom neither HOME nor an account gives a home.
HOMELESS = "import os, sys; del os.environ['HOME']; from slproxy.cli.main import main; main(sys.argv[1:])"
KEYRING = "import os; del os.environ['HOME']; from slproxy.store.system_keyring import find; print(find())"
NOWHERE = {"XDG_CONFIG_HOME": "", "XDG_STATE_HOME": ""}


@pytest.mark.parametrize(
    ("mode", "owner", "is_kept"),
    [
        pytest.param(0o600, ME, True, id="a disk"),
        pytest.param(0o777, ME, False, id="SMB, FAT: every file is open"),
        pytest.param(0o755, ME, False, id="SMB with its default file_mode"),
        pytest.param(0o600, 65533, False, id="NFS, FUSE: every file is somebody else's"),
    ],
)
def test_a_file_that_is_made_for_this_user_alone_and_is_not_is_told_with_its_file_system(
    mode: int, owner: int, is_kept: bool
) -> None:
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))
    if is_kept:
        private_file.check_made(Path("/srv/token.json"), status)
        return
    with pytest.raises(StoreError, match="The file system of /srv keeps neither owner nor mode") as refused:
        private_file.check_made(Path("/srv/token.json"), status)
    assert "chmod" not in refused.value.hint
    assert "file_mode=0600" in refused.value.hint


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may walk through: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def as_another(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run Python as a user without an account, as a container may: exit code, standard output and standard error."""
    if ME != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be another user, with setpriv(1)")
    path = os.pathsep.join(map(str, (ROOT, *sys.path)))
    drop = ["setpriv", "--reuid=12345", "--regid=0", "--groups=12346"]
    if subprocess.run([*drop, sys.executable, "-c", ""], check=False, capture_output=True, timeout=PATIENCE).returncode:
        pytest.skip("another user may not run this interpreter")
    done = subprocess.run(
        [*drop, sys.executable, "-B", *arguments],
        env={**environment(folder), "PYTHONPATH": path, **(env or {})},
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_volume_that_this_user_is_let_into_by_its_group_is_told_with_what_that_user_can_do(open_folder: Path) -> None:
    """Kubernetes' fsGroup: the volume is root's, its group may write, and the user is in the group."""
    volume = open_folder / "volume"
    volume.mkdir()
    os.chown(volume, -1, 12346) if ME == 0 else None
    volume.chmod(0o2775)

    def told(path: Path) -> str:
        code, out, err = as_another(open_folder, "-c", TRY_OUT, str(path))
        assert code == 0, err
        return out

    refused = told(volume / "token.json")
    assert "Others can write to the folder" in refused
    assert "chmod" not in refused
    assert f"{volume}/slproxy/token.json" in refused
    assert told(volume / "slproxy" / "token.json") == "stored\n"
    assert stat.S_IMODE((volume / "slproxy").stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("command", ["status", "profiles"])
def test_a_user_without_a_home_or_with_somebody_elses_is_told_what_to_set(open_folder: Path, command: str) -> None:
    theirs = open_folder / "theirs"
    theirs.mkdir(mode=0o700)
    code, _, err = as_another(open_folder, "-c", HOMELESS, command, env=NOWHERE)
    assert "Traceback" not in err
    assert code == 2
    assert "has no home folder" in err
    assert "SLPROXY_STORE__PATH" in err
    code, _, err = as_another(open_folder, "-c", HOMELESS, command, env={**NOWHERE, "XDG_STATE_HOME": str(theirs)})
    assert "Traceback" not in err
    assert command == "profiles" or (code == 1 and "Permission denied" in err)


def test_who_needs_no_login_needs_no_home(open_folder: Path) -> None:
    for more in ({"SALESLOFT_API_KEY": "ak_" + 64 * "0"}, {"SLPROXY_AUTH__GRANT": "client_credentials"}):
        _, out, err = as_another(open_folder, "-c", HOMELESS, "status", env={**NOWHERE, **more})
        assert f"{more.get('SLPROXY_AUTH__GRANT', 'api_key')} (" in out
        assert err == ""


def test_who_has_no_home_has_no_keyring_and_may_store_a_login_elsewhere(open_folder: Path) -> None:
    code, out, err = as_another(open_folder, "-c", KEYRING, env=NOWHERE)
    assert (code, out) == (0, "None\n"), err


def test_every_error_that_has_a_hint_of_its_own_is_one_that_a_file_system_answers() -> None:
    assert set(private_file.HINTS) <= set(errno.errorcode)
