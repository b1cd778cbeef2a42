"""The effective settings, as ``slproxy config`` prints them."""

from __future__ import annotations

from pathlib import Path

from slproxy.config import SCHEMA, effective
from tests.support.settings import SECRET, loaded


def test_effective_gives_every_setting_with_its_origin_and_no_secret(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.write_text(SECRET)
    settings = loaded(
        tmp_path,
        toml="[listen]\nuds_mode = '0660'\naccept_hosts = ['a.test']",
        dotenv=f"SALESLOFT_CLIENT_ID=abc\nSALESLOFT_CLIENT_SECRET={SECRET}",
        env={"SALESLOFT_API_KEY_FILE": str(mounted)},
        flags={"policy.read_only": True},
    )
    rows = {row.key: (row.value, row.origin) for row in effective(settings)}
    assert list(rows) == list(SCHEMA)
    assert SECRET not in repr(rows)
    assert rows["listen.port"] == ("8642", "default")
    assert rows["listen.uds_mode"] == ("0660", "file slproxy.toml:2")
    assert rows["listen.accept_hosts"] == ('["a.test"]', "file slproxy.toml:3")
    assert rows["listen.key"] == ("(none)", "default")
    assert rows["auth.client_id"] == ("abc", ".env:1")
    assert rows["auth.client_secret"] == ("***", ".env:2")
    assert rows["auth.api_key"] == ("***", f"env SALESLOFT_API_KEY_FILE ({mounted})")
    assert rows["policy.read_only"] == ("true", "flag --read-only")
    assert rows["retry.deadline"] == ("120", "default")
