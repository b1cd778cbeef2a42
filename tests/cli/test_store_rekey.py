"""``slproxy store rekey``: another key encrypts the login, and the old one no longer decrypts it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from slproxy.errors import UndecryptableError
from slproxy.store import FileStore, TokenCipher
from slproxy.store.system_keyring import SystemKeyring
from tests.support.commands import (
    oauth,
    run_here,
    sandboxed,
    system_keyring,
    token_file,
)
from tests.support.logins import (
    FIRST,
    KEYRING,
    SECOND,
    command,
    given,
    kept_in,
    no_token_in,
    of_somebody,
    put,
    serves_and_renews,
    store_of,
    stores,
)
from tests.support.programs import program
from tests.support.raw_http import get, raw
from tests.support.waiting import until

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("chosen_keyring")]


def key_name_of(path: Path) -> str:
    """Return the name of the key that a token file is encrypted with."""
    name = json.loads(path.read_text())["key"]
    assert isinstance(name, str)
    return name


async def test_a_new_key_in_the_keyring_takes_the_place_of_the_old_one_under_a_running_proxy(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record, path, ring = of_somebody(sandbox), token_file(tmp_path), system_keyring(tmp_path)
        cipher = TokenCipher("keyring", key=None, keyring=lambda: SystemKeyring(ring))
        await put(FileStore(path, cipher), record)
        old, old_name = path.read_bytes(), key_name_of(path)
        env = {**oauth(sandbox), **KEYRING, "SLPROXY_STORE__ENCRYPTION": "keyring"}
        async with program("serve", home=tmp_path, env=env) as server:
            await command("store", "rekey", home=tmp_path, env=env, code=0, hidden=(record,))
            new_name = key_name_of(path)
            assert new_name != old_name
            assert ring.get_password("slproxy", old_name) is None
            assert await kept_in(
                FileStore(path, TokenCipher("keyring", key=None, keyring=lambda: SystemKeyring(ring)))
            ) == (record)
            await serves_and_renews(server, sandbox, record)
            assert await server.stop() == 0
        assert key_name_of(path) == new_name
        kept = await kept_in(FileStore(path, TokenCipher("keyring", key=None, keyring=lambda: SystemKeyring(ring))))
        assert kept is not None
        assert kept.generation == record.generation + 1
        # What was encrypted with the old key, in a backup, cannot be decrypted any more.
        path.write_bytes(old)
        await command("token", home=tmp_path, env=env, code=1, hidden=(record, kept))


@pytest.mark.parametrize(
    ("kind", "old"),
    [("file", None), ("file", FIRST), ("redis", FIRST)],
    ids=["what was plain", "an encrypted file", "an encrypted login in Redis"],
)
async def test_a_given_key_encrypts_the_login_and_the_old_one_decrypts_it_no_more(
    tmp_path: Path, redis_url: str, kind: str, old: str | None
) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(store_of(kind, tmp_path, redis_url=redis_url, key=old), record)
        file = tmp_path / "new"
        file.write_text(SECOND + "\n")
        env = {**oauth(sandbox), **stores(kind, redis_url, old)}
        env.pop("SLPROXY_STORE__ENCRYPTION", None)
        rekey = ("store", "rekey", "--new-key-file", "new")
        _, err = await command(*rekey, home=tmp_path, env=env, code=0, hidden=(record,))
        assert "store.key" in err
        with pytest.raises(UndecryptableError):
            await kept_in(store_of(kind, tmp_path, redis_url=redis_url, key=old))
        assert await kept_in(store_of(kind, tmp_path, redis_url=redis_url, key=SECOND)) == record


async def test_a_running_proxy_goes_on_when_the_mounted_key_is_exchanged_after_a_rekey(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record, mounted = of_somebody(sandbox), tmp_path / "mounted"
        await put(FileStore(token_file(tmp_path), given(FIRST)), record)
        mounted.write_text(FIRST)
        (tmp_path / "new").write_text(SECOND)
        env = {**oauth(sandbox), "SLPROXY_STORE__KEY_FILE": str(mounted)}
        async with program("serve", home=tmp_path, env=env) as server:
            rekey = ("store", "rekey", "--new-key-file", "new")
            await command(*rekey, home=tmp_path, env=env, code=0, hidden=(record,))
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
            _, err = await command("token", home=tmp_path, env=env, code=1, hidden=(record,))
            assert "cannot be decrypted" in err
            (tmp_path / "new").replace(mounted)
            out, _ = await command("token", home=tmp_path, env=env, code=0)
            assert out == record.token.access_token + "\n"
            await until(lambda: any("settings reloaded; changed: store.key" in line for line in server.errors))
            await serves_and_renews(server, sandbox, record)
            assert await server.stop() == 0
            assert SECOND not in server.output
        kept = await kept_in(FileStore(token_file(tmp_path), given(SECOND)))
        assert kept is not None
        assert kept.generation == record.generation + 1


# What becomes ``store.key`` as it is, and what a file of that setting may not hold.
NO_KEYS = {
    "missing": None,
    "empty": "\n",
    "too large": "k" * 70_000,
    "with spaces": "a phrase of words",
    "of two lines": "one\ntwo",
}


@pytest.mark.parametrize("name", NO_KEYS)
async def test_a_new_key_that_is_none_is_refused_and_changes_nothing(tmp_path: Path, name: str) -> None:
    """What the settings would refuse as ``store.key`` must not encrypt a login: nothing could decrypt it afterwards."""
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path), given(FIRST)), record := of_somebody(sandbox))
        kept = token_file(tmp_path).read_bytes()
        if (content := NO_KEYS[name]) is not None:
            (tmp_path / name).write_text(content)
        env = {**oauth(sandbox), "SLPROXY_STORE__KEY": FIRST}
        rekey = ("store", "rekey", "--new-key-file", name)
        _, err = await command(*rekey, home=tmp_path, env=env, code=2, hidden=(record,))
        assert name in err
        assert "phrase" not in err
        assert token_file(tmp_path).read_bytes() == kept


async def test_a_rekey_that_cannot_be_made_says_why_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "new").write_text(SECOND)
    new = ["--new-key-file", str(tmp_path / "new")]
    cases: list[tuple[list[str], dict[str, str], int, str]] = [
        ([], {"SLPROXY_STORE__KIND": "keyring"}, 2, "store.kind = keyring"),
        ([], {"SLPROXY_STORE__KIND": "redis", "SLPROXY_STORE__REDIS_URL": "redis://unused"}, 2, "--new-key-file"),
        # There is no keyring.
        ([], {}, 1, "--new-key-file"),
        # Encrypted in spite of it, the next renewal would write it in the clear again.
        ([], {**KEYRING, "SLPROXY_STORE__ENCRYPTION": "off"}, 2, "store.encryption"),
        (new, {"SLPROXY_STORE__ENCRYPTION": "off"}, 2, "store.encryption"),
        (new, {"SLPROXY_STORE__PATH": "elsewhere/token.json"}, 1, "slproxy login"),
    ]
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        homes = [tmp_path / str(number) for number in range(len(cases))]
        for home in homes:
            home.mkdir()
            await put(FileStore(token_file(home)), record)
        kept = token_file(homes[0]).read_bytes()
        results = await asyncio.gather(
            *(
                run_here("store", "rekey", *arguments, home=home, env={**oauth(sandbox), **more})
                for home, (arguments, more, _, _) in zip(homes, cases, strict=True)
            )
        )
    for home, case, (code, out, err) in zip(homes, cases, results, strict=True):
        assert (code, out) == (case[2], ""), (case, err)
        assert case[3] in err, case
        no_token_in(err, record)
        assert token_file(home).read_bytes() == kept, case


async def test_a_rekey_needs_the_old_key(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path), given(FIRST)), of_somebody(sandbox))
        kept = token_file(tmp_path).read_bytes()
        (tmp_path / "new").write_text(SECOND)
        env = {**oauth(sandbox), "SLPROXY_STORE__KEY": "a-wrong-key"}
        rekey = ("store", "rekey", "--new-key-file", "new")
        _, err = await command(*rekey, home=tmp_path, env=env, code=1)
        assert "cannot be decrypted" in err
        assert token_file(tmp_path).read_bytes() == kept
        with pytest.raises(UndecryptableError):
            await kept_in(FileStore(token_file(tmp_path), given(SECOND)))
