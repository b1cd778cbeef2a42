"""The audit's file: whose it is, and that no line in it is cut or lost without a word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slproxy.errors import ConfigError
from slproxy.observe.audit_file import AuditFile
from tests.support.disks import full_at


def audit_file(path: Path) -> AuditFile:
    return AuditFile(path, gap=lambda lost: b"gap %d\n" % lost)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_it_is_made_for_this_user_alone(tmp_path: Path, umask: int) -> None:
    path, before = tmp_path / "audit", os.umask(umask)
    try:
        audit_file(path).open()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_lines_are_appended_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    for line in (b"a\n", b"b\n"):
        file = audit_file(path)
        assert file.append(line)
        file.close()
    assert path.read_bytes() == b"a\nb\n"


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("else"))


def _foreign(path: Path) -> None:
    path.touch(mode=0o600)
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_link, "is a symbolic link"),
        (lambda path: path.mkdir(), "cannot be opened: Is a directory"),
        (lambda path: os.mkfifo(path, 0o600), "is not a regular file"),
        (lambda path: (path.touch(), path.chmod(0o644)), r"open to others \(mode 0644\)"),
        (lambda path: (path.touch(), path.chmod(0o620)), r"open to others \(mode 0620\)"),
        pytest.param(
            _foreign,
            "belongs to another user",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
        ),
    ],
    ids=["a link", "a folder", "a pipe", "readable by others", "writable by a group", "another's"],
)
def test_what_is_not_this_users_own_file_is_rejected_with_a_remedy(tmp_path: Path, make: object, why: str) -> None:
    assert callable(make)
    make(tmp_path / "audit")
    with pytest.raises(ConfigError, match=why) as raised:
        audit_file(tmp_path / "audit").open()
    assert raised.value.hint
    assert not (tmp_path / "else").exists()


def test_a_missing_folder_is_told_and_what_is_written_once_it_is_there_says_what_was_lost(tmp_path: Path) -> None:
    file = audit_file(tmp_path / "folder" / "audit")
    assert not file.append(b"a\n")
    assert "No such file or directory" in (file.fault or "")
    (tmp_path / "folder").mkdir()
    assert file.append(b"b\n")
    assert file.fault is None
    assert file.path.read_bytes() == b"gap 1\nb\n"


@pytest.mark.parametrize("room", range(12))
def test_a_line_that_a_full_disk_cuts_is_completed_and_those_kept_out_are_counted(tmp_path: Path, room: int) -> None:
    file = audit_file(tmp_path / "audit")
    with full_at(room):
        written = [file.append(line) for line in (b"first\n", b"second\n", b"third\n")]
        assert (file.fault is None) is all(written)
        assert file.fault in ("File too large", None)
    assert file.append(b"last\n")
    assert file.fault is None
    lines = file.path.read_bytes().decode().splitlines()
    # A line that was begun is there, if late; a gap stands for all others.
    told = sum(int(line.split()[1]) if line.startswith("gap") else 1 for line in lines)
    assert told == 4, lines
    assert {line for line in lines if not line.startswith("gap")} <= {"first", "second", "third", "last"}
    assert lines[-1] == "last"
    assert sum(written) <= len(lines) - 1


@pytest.mark.parametrize("gap_room", range(8))
def test_a_disk_that_fills_up_again_cuts_no_line_for_good(tmp_path: Path, gap_room: int) -> None:
    file = audit_file(tmp_path / "audit")
    with full_at(0):
        assert not file.append(b"lost\n")
    with full_at(gap_room):
        file.append(b"second\n")
    assert file.append(b"last\n")
    lines = file.path.read_bytes().decode().splitlines()
    assert lines[-1] == "last"
    assert sum(int(line.split()[1]) if line.startswith("gap") else 1 for line in lines) == 3, lines


def test_the_beginning_of_a_line_that_a_dead_process_left_gets_an_end(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.touch(mode=0o600)
    path.write_bytes(b"whole\ncut")
    assert audit_file(path).append(b"next\n")
    assert path.read_bytes() == b"whole\ncut\nnext\n"


def test_what_was_rotated_keeps_its_lines_and_a_cut_one_counts_as_lost(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    file = audit_file(path)
    file.append(b"a\n")
    with full_at(4):
        assert not file.append(b"second\n")
    path.rename(tmp_path / "audit.1")
    file.open()
    file.append(b"b\n")
    assert (tmp_path / "audit.1").read_bytes() == b"a\nse"
    assert path.read_bytes() == b"gap 1\nb\n"


def test_one_that_cannot_be_opened_anew_goes_on_with_the_old_one(tmp_path: Path) -> None:
    file = audit_file(tmp_path / "audit")
    file.append(b"a\n")
    file.path.rename(tmp_path / "audit.1")
    _link(file.path)
    with pytest.raises(ConfigError):
        file.open()
    assert file.append(b"b\n")
    assert (tmp_path / "audit.1").read_bytes() == b"a\nb\n"
