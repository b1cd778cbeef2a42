"""Drives a headless Chromium over the DevTools protocol: one browser, and a clean tab for whoever asks.

https://chromedevtools.github.io/devtools-protocol/ names the methods. The browser outlives a test's event loop, so each
tab brings a connection of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp

from tests.support.programs import environment
from tests.support.waiting import PATIENCE, until

BINARY = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_FLAGS = (
    "--headless",
    "--disable-gpu",
    # As root, and in most containers, Chromium's own sandbox cannot be had; it shows nothing but our own pages here.
    "--no-sandbox",
    # Nothing leaves this machine, and nothing but our pages talks to the servers of a test.
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-first-run", "--disable-default-apps", "--disable-extensions"),
    # Every name of a test is this machine, as a name is that was rebound; no other name is anything.
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND,"
    "EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE 0.0.0.0",
    # A page may open a window without a click; a click is not what stops it from reading the window.
    "--disable-popup-blocking",
    # The certificates of the tests.
    "--ignore-certificate-errors",
    "--remote-debugging-port=0",
)


@contextmanager
def running(*flags: str) -> Iterator[str]:
    """Run a browser with an empty profile; give the address of its DevTools socket."""
    assert BINARY is not None, "there is no chromium here"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, profile, said = Path(folder), Path(folder, "profile"), Path(folder, "stderr")
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                [BINARY, *_FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
                env=environment(home, TMPDIR=str(home)),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            yield _address(process, profile / "DevToolsActivePort", said)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], file: Path, said: Path) -> str:
    """Return the address that the browser writes, in two lines, once it listens."""
    deadline = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        lines = file.read_text().split("\n") if file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.02)
    raise AssertionError(f"the browser did not start: {said.read_text(errors='replace')}")


class ScriptError(Exception):
    """A script threw in its page."""


class Tab:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, object]]] = {}
        self.loads = 0
        self._session: str | None = None
        self._target = ""
        # None is the one that the browser begins with.
        self.context: str | None = None

    async def listen(self) -> None:
        """Take what the browser says, until it says no more."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            elif said["method"] == "Page.loadEventFired":
                self.loads += 1

    async def attach(self, *, alone: bool) -> None:
        """Open the tab; ``alone`` in a context of its own: no cookies, caches or permissions of another test."""
        where = {}
        if alone:
            where = await self.call("Target.createBrowserContext", disposeOnDetach=True)
            self.context = str(where["browserContextId"])
        self._target = str((await self.call("Target.createTarget", url="about:blank", **where))["targetId"])
        attached = await self.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = str(attached["sessionId"])
        await self.call("Page.enable")

    async def detach(self) -> None:
        """Close the tab, and the windows that it opened."""
        self._session = None
        if self.context is None:
            await self.call("Target.closeTarget", targetId=self._target)
        else:
            await self.call("Target.disposeBrowserContext", browserContextId=self.context)

    async def call(self, method: str, **params: object) -> dict[str, object]:
        """Call a method of the protocol: on the tab once there is one, before that on the browser."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        session = {"sessionId": self._session} if self._session is not None else {}
        async with asyncio.timeout(PATIENCE):
            await self._socket.send_json({"id": number, "method": method, "params": params, **session})
            said = await self._waiting[number]
        result = said.get("result")
        assert isinstance(result, dict), f"{method}: {said.get('error')}"
        return result

    async def open(self, url: str) -> None:
        """Go to ``url`` as if it had been typed into the address bar, and wait until the page is there."""
        loads = self.loads
        answer = await self.call("Page.navigate", url=url, transitionType="typed")
        assert "errorText" not in answer, answer
        await until(lambda: self.loads > loads)

    async def may_reach_this_machine(self, origin: str) -> None:
        """Say yes in the user's place, should the browser ask whether pages of ``origin`` may connect to here."""
        for name in ("local-network-access", "loopback-network"):  # the second from Chromium 145 on
            await self.call(
                "Browser.setPermission",
                permission={"name": name},
                setting="granted",
                origin=origin,
                browserContextId=self.context,
            )

    async def run(self, script: str, *, clicked: bool = True) -> object:
        """Run the body of an asynchronous function in the page, as the page's own; return what it returns.

        ``clicked``: as if the user had just clicked on the page.
        """
        answer = await self.call(
            "Runtime.evaluate",
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
            userGesture=clicked,
        )
        if "exceptionDetails" in answer:
            raise ScriptError(str(answer["exceptionDetails"]))
        result = answer["result"]
        assert isinstance(result, dict)
        return result.get("value")


@asynccontextmanager
async def new_tab(browser: str, *, alone: bool = True) -> AsyncIterator[Tab]:
    """Open a tab in the browser at this address, in a context of its own unless its origins are of this test alone."""
    async with aiohttp.ClientSession() as session, session.ws_connect(browser, max_msg_size=0) as socket:
        tab = Tab(socket)
        listening = asyncio.create_task(tab.listen())
        try:
            await tab.attach(alone=alone)
            yield tab
            await tab.detach()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
