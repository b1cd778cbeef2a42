"""Keyrings that lose, cut or change what they are given: real backends, each in processes of their own."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import keyring
import pytest

from slproxy.errors import StoreError
from slproxy.store import Record, Token, TokenCipher
from slproxy.store.keyring import KeyringStore
from slproxy.store.system_keyring import find
from tests.support.commands import allowed, interactive, oauth, sandboxed
from tests.support.programs import run

pytestmark = pytest.mark.heavy

# Backends as the library loads them: each keeps its secrets in a file, and does one thing wrong.
BACKENDS = """
import json, os, pathlib
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError, PasswordSetError

PLACE = pathlib.Path(os.environ["HOME"], "ring.json")

class Good(KeyringBackend):
    priority = 1
    def load(self):
        return json.loads(PLACE.read_text()) if PLACE.exists() else {}
    def save(self, held):
        PLACE.write_text(json.dumps(held))
    def get_password(self, service, name):
        return self.load().get(name)
    def set_password(self, service, name, value):
        self.save({**self.load(), name: value})
    def delete_password(self, service, name):
        held = self.load()
        if name not in held:
            raise PasswordDeleteError(name)
        del held[name]
        self.save(held)

class Memory(Good):
    held = {}
    def load(self):
        return self.held
    def save(self, held):
        type(self).held = held

class Cuts(Good):
    def set_password(self, service, name, value):
        super().set_password(service, name, value[:40])

class CutsLong(Good):
    def set_password(self, service, name, value):
        super().set_password(service, name, value[:600])

class Refuses(Good):
    def set_password(self, service, name, value):
        if len(value) > 40:
            raise PasswordSetError("2560 bytes at most: " + value)
        super().set_password(service, name, value)

class Lowers(Good):
    def get_password(self, service, name):
        value = super().get_password(service, name)
        return value and value.lower()

class FirstLine(Good):
    def get_password(self, service, name):
        value = super().get_password(service, name)
        return value and value.splitlines()[0].strip()
"""
BAD = ("keyring.backends.null.Keyring", "rings.Memory", "rings.Cuts", "rings.Refuses", "rings.Lowers")
GOOD = ("rings.Good", "rings.FirstLine", "keyrings.alt.file.PlaintextKeyring")
RECORD = Record(
    client_id="client-1",
    accounts_url="https://accounts.salesloft.com",
    token=Token(access_token="hidden-Access", refresh_token="hidden-Refresh", obtained_at=1.0, expires_at=2.0),
)


@pytest.fixture
def ring(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose a backend, for this process and those that it starts."""
    (tmp_path / "rings.py").write_text(BACKENDS)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", request.param)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rings", raising=False)
    module, _, name = str(request.param).rpartition(".")
    keyring.set_keyring(getattr(importlib.import_module(module), name)())
    return name


@pytest.mark.parametrize("ring", BAD, indirect=True)
async def test_what_a_keyring_does_not_keep_is_not_entrusted_to_it(
    ring: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A key: not encrypted with, and that is said once.
    cipher = TokenCipher("auto", key=None, keyring=find)
    assert [cipher.encrypt(b"plain") for _ in range(3)] == [b"plain"] * 3
    assert cipher.description.startswith("not encrypted (The keyring (")
    assert caplog.text.count("stored without encryption") == 1
    with pytest.raises(StoreError, match=r"The keyring \(.*\) (does not keep|refused)") as refused:
        TokenCipher("keyring", key=None, keyring=find).encrypt(b"plain")
    assert "store.encryption = off" in refused.value.hint
    # A login: refused before anybody logs in, and when it comes.
    store = KeyringStore("default", lock_path=tmp_path / "lock")
    for entrust in (store.try_out(), store.write(RECORD)):
        with pytest.raises(StoreError, match=r"The keyring \(.*\) (does not keep|refused)") as refused:
            await entrust
        assert "store.kind = file" in refused.value.hint
        assert "hidden" not in f"{refused.value}"
    held = (tmp_path / "ring.json").read_text() if (tmp_path / "ring.json").exists() else "{}"
    assert json.loads(held) == {}, "nothing is left behind"


@pytest.mark.parametrize("ring", ["rings.CutsLong"], indirect=True)
async def test_a_login_stays_when_the_keyring_has_no_room_for_the_next_one(ring: str, tmp_path: Path) -> None:
    store = KeyringStore("default", lock_path=tmp_path / "lock")
    await store.write(RECORD)
    longer = replace(RECORD.token, access_token="hidden" * 200)
    with pytest.raises(StoreError, match="does not keep"):
        await store.write(replace(RECORD, generation=2, token=longer))
    assert await store.read() == RECORD


@pytest.mark.parametrize("ring", GOOD, indirect=True)
async def test_a_keyring_that_keeps_what_it_is_given_is_used(ring: str, tmp_path: Path) -> None:
    text = TokenCipher("auto", key=None, keyring=find).encrypt(b"plain")
    assert b"plain" not in text
    assert TokenCipher("auto", key=None, keyring=find).decrypt(text) == b"plain"
    store = KeyringStore("default", lock_path=tmp_path / "lock")
    await store.try_out()
    await store.write(RECORD)
    assert await KeyringStore("default", lock_path=tmp_path / "lock").read() == RECORD
    if (tmp_path / "ring.json").exists():
        assert "trial" not in (tmp_path / "ring.json").read_text()


async def test_a_login_beside_a_keyring_that_forgets_is_stored_plainly_and_outlives_its_process(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox, PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring")
        async with interactive("login", "--no-browser", home=tmp_path, env=env) as login:
            assert await login.end(await allowed(await login.url()) + "\n") == 0, login.err
            assert login.err.count("not encrypted (The keyring (") == 1
        assert (await run("whoami", home=tmp_path, env=env))[0] == 0
        env["SLPROXY_STORE__ENCRYPTION"] = "keyring"
        code, _, err = await run("login", "--no-browser", home=tmp_path, env=env)
        assert code == 1
        assert "does not keep what it is given" in err
        assert "/oauth/authorize" not in err, "nobody is sent to the browser for nothing"
