"""The inspector in a real browser, used as a person uses it: by keys, clicks and what can be read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.chromium import Tab, new_tab
from tests.support.waiting import SOON

# What no page may do: break its policy, or throw.
_WATCH = """
window.wrong = [];
addEventListener("securitypolicyviolation", (e) => wrong.push(`${e.violatedDirective} ${e.blockedURI} ${e.sample}`));
addEventListener("error", (e) => wrong.push(`${e.message} ${e.filename}:${e.lineno}`), true);
addEventListener("unhandledrejection", (e) => wrong.push(String(e.reason?.stack ?? e.reason)));
"""
# https://chromedevtools.github.io/devtools-protocol/tot/Input/#method-dispatchKeyEvent: what is no letter has its code.
_CODES = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38, "Home": 36, "End": 35, " ": 32}


class InspectorPage:
    """The page in one tab."""

    def __init__(self, tab: Tab, origin: str) -> None:
        self.tab, self.origin = tab, origin

    async def open(self, state: str) -> None:
        """Load the page, and wait until its connection is in this state."""
        await self.tab.open(f"{self.origin}/_slproxy/")
        await self.until(f"document.querySelector('.connection.{state}')")

    async def value(self, script: str) -> object:
        """Return what an expression is in the page."""
        return await self.tab.run(f"return {script}", clicked=False)

    async def until(self, script: str) -> object:
        """Wait until an expression is true in the page; return it."""
        value = await self.tab.run(
            f"""const until = performance.now() + {1000 * SOON};
            for (;;) {{
              const value = {script};
              if (value) return value === true || value instanceof Node ? true : value;
              if (performance.now() > until) throw new Error(document.body.innerText + {json.dumps(script)});
              await new Promise((done) => setTimeout(done, 10));
            }}""",
            clicked=False,
        )
        assert value
        return value

    async def reads(self, text: str, where: str = "body") -> None:
        """Wait until a text can be read."""
        await self.until(f"document.querySelector({json.dumps(where)})?.innerText.includes({json.dumps(text)})")

    async def text(self, selector: str) -> str:
        """Return what can be read there."""
        return str(await self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def rows(self, count: int) -> list[dict[str, str]]:
        """Wait until the list has so many rows, none of them under way; return the cells of those in sight."""
        await self.until(
            f"document.querySelector('.list').ariaRowCount === '{count + 1}' && !document.querySelector('.row.open')"
        )
        rows = await self.value(
            """[...document.querySelectorAll(".rows .row")]
            .sort((one, other) => one.ariaRowIndex - other.ariaRowIndex)
            .map((row) => [...row.children].map((cell) => [cell.className.split(" ")[0], cell.innerText.trim()]))
            .map((cells) => Object.fromEntries(cells))"""
        )
        assert isinstance(rows, list)
        return rows

    async def press(self, *keys: str) -> None:
        """Press keys one after the other, each as a person does: after what the one before has brought."""
        for key in keys:
            code = _CODES.get(key, 0)
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            codes = {"windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code}
            pressed: dict[str, object] = {"key": key, "code": key, **codes}
            await self.tab.call(
                "Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **pressed
            )
            await self.tab.call("Input.dispatchKeyEvent", type="keyUp", **pressed)
            await self.drawn()

    async def type(self, text: str) -> None:
        """Type into what has the focus, in the place of what stands there."""
        await self.tab.run("document.activeElement.select()")
        await self.tab.call("Input.insertText", text=text)
        await self.drawn()

    async def filter(self, text: str) -> None:
        """Write into the filter box, and go back to the list."""
        await self.press("/")
        await self.type(text)
        await self.press("Enter")

    async def click(self, selector: str) -> None:
        """Click on the middle of something."""
        place = await self.until(
            f"""(() => {{ const found = document.querySelector({json.dumps(selector)});
            found?.scrollIntoView({{ block: "center" }});
            const box = found?.getBoundingClientRect();
            return box?.width && [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
        )
        assert isinstance(place, list)
        for kind in ("mousePressed", "mouseReleased"):
            await self.tab.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )
        await self.drawn()

    async def drawn(self) -> None:
        """Wait until the page has drawn what it knows."""
        await self.tab.run("await new Promise((done) => requestAnimationFrame(() => setTimeout(done)))", clicked=False)

    async def look(self, *, width: int = 1280, height: int = 800, dark: bool = False, reduced: bool = False) -> None:
        """Set the size of the window, and what the person prefers."""
        await self.tab.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced else "no-preference"},
        ]
        await self.tab.call("Emulation.setEmulatedMedia", features=features)

    async def assert_nothing_is_wrong(self) -> None:
        assert await self.value("window.wrong") == []


@asynccontextmanager
async def inspector_page(
    browser: str, origin: str, *, before: str = "", state: str = "live"
) -> AsyncIterator[InspectorPage]:
    """Open the inspector in a tab; at the end hold that it broke no policy and threw nothing.

    ``before`` is a script that runs before those of the page.
    """
    async with new_tab(browser, alone=False) as tab:
        await tab.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH + before)
        page = InspectorPage(tab, origin)
        await page.look()
        await page.open(state)
        yield page
        await page.assert_nothing_is_wrong()
