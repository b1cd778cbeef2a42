"""The token in a file: docs/contract.md, Tokens, with real files, processes and signals."""

# ruff: noqa: ASYNC221, ASYNC240  # nothing else runs on these loops, and the files are what is tested

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.errors import StoreError
from slproxy.store import FileStore, Record, Token, TokenStore
from slproxy.store.file_lock import file_lock
from slproxy.store.record_format import FORMAT
from tests.support import ROOT
from tests.support.waiting import PATIENCE

RECORD = Record(
    client_id="client-1",
    accounts_url="https://accounts.salesloft.com",
    token=Token(
        access_token="hidden-access",
        refresh_token="hidden-refresh",
        obtained_at=1_795_000_000.25,
        expires_at=1_795_007_200.25,
        scope="a b",
    ),
    generation=7,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
as_a_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder / "token.json"


@pytest.fixture
def umask_0() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def refusal(store: TokenStore) -> StoreError:
    """Return what reading is refused with; it says what to do, and nothing of what the file holds."""
    with pytest.raises(StoreError) as caught:
        await store.read()
    assert caught.value.hint
    assert "hidden" not in f"{caught.value} {caught.value.hint}"
    return caught.value


# The file


@pytest.mark.usefixtures("umask_0")
async def test_the_file_is_0600_and_its_folder_0700_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token.json"
    store = FileStore(path)
    async with store.lock():
        await store.write(RECORD)
        assert {entry.name: mode(entry) for entry in path.parent.iterdir()} == {
            "token.json": 0o600,
            "token.json.lock": 0o600,
            "token.json.login": 0o600,
        }
    assert mode(path.parent) == 0o700
    await store.write(RECORD)
    assert mode(path) == 0o600


@pytest.mark.usefixtures("umask_0")
async def test_each_folder_that_is_made_on_the_way_is_0700(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "state" / "token.json"
    await FileStore(path).write(RECORD)
    assert [mode(folder) for folder in path.parents[:3]] == [0o700] * 3


async def test_writing_leaves_nothing_but_the_file_and_the_mark_of_a_login(path: Path) -> None:
    store = FileStore(path)
    for generation in range(1, 5):
        await store.write(replace(RECORD, generation=generation))
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["token.json", "token.json.login"]
    await store.delete()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["token.json.login", "token.json.logout"]


async def test_reading_makes_nothing(tmp_path: Path) -> None:
    assert await FileStore(tmp_path / "none" / "token.json").read() is None
    await FileStore(tmp_path / "none" / "token.json").delete()
    assert list(tmp_path.iterdir()) == []


async def test_a_reader_of_the_old_file_still_has_it_whole(path: Path) -> None:
    store = FileStore(path)
    await store.write(RECORD)
    with path.open("rb") as old:
        await store.write(replace(RECORD, generation=8))
        assert json.loads(old.read())["generation"] == 7


async def test_two_stores_on_one_file_share_the_record(path: Path) -> None:
    await FileStore(path).write(RECORD)
    assert await FileStore(path).read() == RECORD


# A write that fails


FAILING_WRITE = textwrap.dedent("""
    import asyncio, json, resource, signal, sys
    from dataclasses import replace
    from pathlib import Path
    from slproxy.errors import StoreError
    from slproxy.store import FileStore

    async def main():
        store = FileStore(Path(sys.argv[1]))
        record = await store.read()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        try:
            await store.write(record.renewed(replace(record.token, access_token="hidden-new")))
        except StoreError as error:
            print(error, error.hint)

    asyncio.run(main())
""")


async def test_the_old_record_survives_a_write_that_the_disk_has_no_room_for(path: Path) -> None:
    # A process of its own: such a limit is one of the whole process.
    store = FileStore(path)
    await store.write(RECORD)
    command = [sys.executable, "-c", FAILING_WRITE, str(path)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Cannot write {path}: File too large." in done.stdout
    assert "hidden" not in done.stdout
    assert await store.read() == RECORD
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["token.json", "token.json.login"]


@as_a_user
async def test_the_old_record_survives_a_folder_that_became_unwritable(path: Path) -> None:
    store = FileStore(path)
    await store.write(RECORD)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(StoreError):
            await store.write(replace(RECORD, generation=8))
        with pytest.raises(StoreError):
            await store.delete()
        assert await store.read() == RECORD
    finally:
        path.parent.chmod(0o700)


async def test_a_place_that_cannot_hold_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FileStore(tmp_path / "file" / "token.json")
    with pytest.raises(StoreError, match="Cannot read") as caught:
        await store.write(RECORD)
    assert str(tmp_path / "file") in str(caught.value)
    assert isinstance(await refusal(store), StoreError)


async def test_a_place_that_cannot_be_locked_is_locked_among_the_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "token.json"
    async with another_process_with_the_lock(path), FileStore(tmp_path / "file" / "other.json").lock():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), FileStore(path).lock():
                pass


# What is not trusted


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o604, 0o660, 0o666, 0o606, 0o601, 0o610, 0o700 | 0o007, 0o620])
async def test_a_file_that_is_open_to_others_is_refused_with_the_command_that_repairs_it(path: Path, bits: int) -> None:
    store = FileStore(path)
    await store.write(RECORD)
    path.chmod(bits)
    error = await refusal(store)
    assert f"chmod 600 {path}" in error.hint
    assert f"{bits:04o}" in str(error)
    subprocess.run(error.hint.partition(": ")[2], shell=True, check=True)
    assert await store.read() == RECORD


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o770, 0o777, 0o1777, 0o722])
async def test_a_folder_that_others_can_write_to_is_refused_with_the_command_that_repairs_it(
    path: Path, bits: int
) -> None:
    store = FileStore(path)
    await store.write(RECORD)
    path.parent.chmod(bits)
    error = await refusal(store)
    assert f"chmod go-w {path.parent}" in error.hint
    with pytest.raises(StoreError, match="Others can write"):
        await store.write(replace(RECORD, generation=8))
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["token.json", "token.json.login"]
    subprocess.run(error.hint.partition(": ")[2], shell=True, check=True)
    assert await store.read() == RECORD


@pytest.mark.parametrize("bits", [0o700, 0o500, 0o755, 0o750, 0o711])
async def test_a_folder_that_others_can_only_look_at_will_do(path: Path, bits: int) -> None:
    store = FileStore(path)
    await store.write(RECORD)
    path.parent.chmod(bits)
    assert await store.read() == RECORD
    path.parent.chmod(0o700)


async def test_a_repairing_command_is_quoted_for_the_shell(tmp_path: Path) -> None:
    path = tmp_path / "my state; $(echo x)" / "it's.json"
    store = FileStore(path)
    await store.write(RECORD)
    path.chmod(0o644)
    error = await refusal(store)
    subprocess.run(error.hint.partition(": ")[2], shell=True, check=True)
    assert mode(path) == 0o600


@pytest.mark.parametrize("target", ["another.json", "nowhere.json", "."])
async def test_a_symbolic_link_is_refused_and_never_followed(path: Path, target: str) -> None:
    other = path.with_name("another.json")
    await FileStore(other).write(RECORD)
    path.symlink_to(target)
    error = await refusal(FileStore(path))
    assert "symbolic link" in str(error)
    assert str(path) in str(error)
    assert await FileStore(other).read() == RECORD


async def test_writing_over_a_symbolic_link_leaves_what_it_points_at(path: Path) -> None:
    other = path.with_name("another.json")
    await FileStore(other).write(RECORD)
    path.symlink_to(other)
    with contextlib.suppress(StoreError):
        await FileStore(path).write(replace(RECORD, generation=8))
    assert await FileStore(other).read() == RECORD
    await FileStore(path).delete()
    assert await FileStore(other).read() == RECORD


async def test_a_lock_that_is_a_symbolic_link_is_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.with_name("token.json.lock").symlink_to(victim)
    with contextlib.suppress(StoreError):
        async with asyncio.timeout(PATIENCE), FileStore(path).lock():
            pass
    assert victim.read_text() == "precious"


async def test_what_is_no_regular_file_is_refused_and_never_waited_for(path: Path) -> None:
    os.mkfifo(path, 0o600)
    reading = asyncio.create_task(refusal(FileStore(path)))
    await asyncio.wait({reading}, timeout=3.0)
    waited = not reading.done()
    os.close(os.open(path, os.O_RDWR))  # lets go whoever waits for a writer, or its thread would never end
    assert "not a regular file" in str(await reading)
    assert not waited


async def test_a_directory_in_the_files_place_is_refused(path: Path) -> None:
    path.mkdir(mode=0o700)
    assert "not a regular file" in str(await refusal(FileStore(path)))


@as_root
async def test_a_file_or_folder_of_another_user_is_refused_with_the_command_that_repairs_it(path: Path) -> None:
    store = FileStore(path)
    await store.write(RECORD)
    for entry in (path, path.parent):
        os.chown(entry, 4711, -1)
        error = await refusal(store)
        assert "another user" in str(error)
        assert f"chown {os.geteuid()} {entry}" in error.hint
        os.chown(entry, os.geteuid(), -1)
    assert await store.read() == RECORD


def stored() -> dict[str, object]:
    return {
        "format": FORMAT,
        "client_id": "c",
        "accounts_url": "u",
        "generation": 1,
        "refused": "",
        "access_token": "hidden-t",
        "refresh_token": None,
        "obtained_at": 1.0,
        "expires_at": None,
        "scope": "",
    }


def dumped(**changes: object) -> bytes:
    return json.dumps({name: value for name, value in (stored() | changes).items() if value != "left out"}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hidden",
        b"{",
        b"null",
        b"7",
        b'"hidden"',
        b"[]",
        b'["hidden"]',
        b"{}",
        b"\xff\xfehidden",
        b"\x00" * 500,
        dumped()[:-1],
        dumped()[: len(dumped()) // 2],
        dumped() + b"hidden",
        dumped() + dumped(),
        dumped(format="slproxy-token-2"),
        dumped(format=None),
        *[dumped(**{name: "left out"}) for name in stored()],
        dumped(client_id=None),
        dumped(accounts_url=7),
        dumped(access_token=None),
        dumped(access_token=["hidden"]),
        dumped(refresh_token=7),
        dumped(scope=None),
        dumped(refused=False),
        dumped(generation="hidden"),
        dumped(generation=None),
        dumped(obtained_at="hidden"),
        dumped(obtained_at=None),
        dumped(expires_at="hidden"),
        dumped(expires_at=[]),
        dumped(generation=float("inf")),
        dumped(obtained_at=10**400),
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content)[:40],
)
async def test_content_that_is_foreign_or_damaged_is_refused_and_nothing_of_it_is_told(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    error = await refusal(FileStore(path))
    assert str(path) in str(error)
    assert "slproxy login" in error.hint
    assert not path.exists(), "a store that cannot be read must not stop the next login"
    (aside,) = path.parent.glob("token.json.aside-*")
    assert aside.read_bytes() == content, "whose it is we do not know, so it is kept"
    assert str(aside) in error.hint


async def test_what_is_quarantined_is_never_written_over(path: Path) -> None:
    for number in range(3):
        path.write_bytes(b"hidden %d" % number)
        path.chmod(0o600)
        await refusal(FileStore(path))
    kept = {aside.read_bytes() for aside in path.parent.glob("token.json.aside-*")}
    assert kept == {b"hidden 0", b"hidden 1", b"hidden 2"}


async def test_every_truncation_of_a_file_is_refused(path: Path) -> None:
    store = FileStore(path)
    await store.write(RECORD)
    content = path.read_bytes()
    # The last byte is a line end, which JSON does not need.
    for end in range(len(content) - 1):
        path.write_bytes(content[:end])
        await refusal(store)


# The lock, between processes

HOLDER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from slproxy.store import FileStore

    async def main():
        async with FileStore(Path(sys.argv[1])).lock():
            print("held", flush=True)
            await asyncio.to_thread(sys.stdin.read)
        print("released", flush=True)

    asyncio.run(main())
""")


@asynccontextmanager
async def another_process_with_the_lock(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(path), cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"held\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("end", ["release", "SIGKILL"])
async def test_the_lock_excludes_another_process_and_dies_with_it(path: Path, end: str) -> None:
    async with another_process_with_the_lock(path) as process:
        assert process.stdin is not None
        held = asyncio.Event()

        async def hold() -> None:
            async with FileStore(path).lock():
                held.set()

        waiting = asyncio.create_task(hold())
        # It would have it by now: no other way is there to see that nothing happens.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await held.wait()
        if end == "release":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            await waiting
        assert held.is_set()


async def test_the_lock_is_one_for_each_file(path: Path) -> None:
    other = FileStore(path.with_name("other.json"))
    async with another_process_with_the_lock(path), asyncio.timeout(PATIENCE), other.lock():
        pass


async def test_a_store_that_another_process_has_locked_can_be_read(path: Path) -> None:
    await FileStore(path).write(RECORD)
    async with another_process_with_the_lock(path), asyncio.timeout(PATIENCE):
        assert await FileStore(path).read() == RECORD


async def test_a_holder_that_hangs_blocks_nobody_for_long_and_the_others_still_go_one_by_one(path: Path) -> None:
    lock = path.with_name(path.name + ".lock")
    inside, most = 0, 0

    async def renew() -> None:
        nonlocal inside, most
        async with file_lock(lock, max_wait=0.3):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.02)
            inside -= 1

    async with another_process_with_the_lock(path) as process:
        process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(renew(), renew(), renew())
    assert most == 1


async def test_a_lock_that_is_held_twice_over_is_told(path: Path) -> None:
    lock = path.with_name(path.name + ".lock")
    async with file_lock(lock), file_lock(lock, max_wait=0.1):
        with pytest.raises(StoreError, match="for too long"):
            async with file_lock(lock, max_wait=0.1):
                pass


@pytest.mark.parametrize(
    ("what", "is_used"),
    [("is there", True), ("was lost", True), ("was damaged", True), ("was logged out", False)],
)
async def test_what_a_killed_process_had_written_is_used_unless_its_login_was_logged_out(
    path: Path, what: str, is_used: bool
) -> None:
    store, newer = FileStore(path), replace(RECORD, generation=RECORD.generation + 1)
    await store.write(newer)
    unfinished = path.with_name(f".{path.name}.abcd1234")
    content = path.read_bytes()
    await asyncio.to_thread(path.unlink)
    await store.write(RECORD)
    match what:
        case "was lost":
            await asyncio.to_thread(path.unlink)
        case "was damaged":
            path.write_bytes(content[:50])
        case "was logged out":
            await store.delete()
    unfinished.write_bytes(content)
    unfinished.chmod(0o600)
    async with store.lock():
        assert await store.read() == (newer if is_used else None)
    assert not await asyncio.to_thread(unfinished.exists)
