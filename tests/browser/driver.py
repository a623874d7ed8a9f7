"""A browser for tests: headless Chromium by the W3C WebDriver protocol, nothing between."""

import base64
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from darkbloom_mesh.clock import SystemClock

PATIENCE_S = 60.0
PHONE, DESKTOP = (360, 740), (1280, 860)
_POLL_S = 0.03
_START_S = 30.0
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class WebDriverError(AssertionError):
    """The browser refused a command."""


@dataclass(frozen=True)
class Element:
    """One element of the page."""

    browser: "Browser"
    name: str

    @property
    def handle(self) -> dict[str, str]:
        """What scripts take for this element."""
        return {_ELEMENT: self.name}

    @property
    def text(self) -> str:
        """What a person reads."""
        return str(self.browser.command("GET", f"element/{self.name}/text"))

    def click(self) -> None:
        """Press it, where a person could."""
        # A sticky bar may lie over what WebDriver has only just scrolled into view.
        self.browser.script("arguments[0].scrollIntoView({block: 'center'})", self)
        self.browser.command("POST", f"element/{self.name}/click", {})

    def write(self, text: str) -> None:
        """Replace what it holds, key by key."""
        self.browser.command("POST", f"element/{self.name}/clear", {})
        self.browser.command("POST", f"element/{self.name}/value", {"text": text})


class Browser:
    """One window."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self._http = http
        self._session = session

    def command(self, method: str, path: str, body: object = None) -> Any:
        """Send one command and return its value.

        Raises:
            WebDriverError: The browser would not.
        """
        response = self._http.request(method, f"/session/{self._session}/{path}", json=body)
        value = response.json()["value"]
        if response.is_error:
            raise WebDriverError(f"{value['error']}: {value['message']}")
        return value

    def open(self, url: str) -> None:
        """Load a page."""
        self.command("POST", "url", {"url": url})

    @property
    def url(self) -> str:
        """Where the browser is."""
        return str(self.command("GET", "url"))

    def script(self, code: str, *arguments: Any) -> Any:
        """Run a function body in the page; elements may be given."""
        given = [one.handle if isinstance(one, Element) else one for one in arguments]
        return self.command("POST", "execute/sync", {"script": code, "args": given})

    def wait_script(self, code: str, *arguments: Any) -> Any:
        """Run a function body whose last argument is called with the result."""
        return self.command("POST", "execute/async", {"script": code, "args": list(arguments)})

    def all(self, xpath: str) -> list[Element]:
        """Return what an XPath finds now."""
        found = self.command("POST", "elements", {"using": "xpath", "value": xpath})
        return [Element(self, one[_ELEMENT]) for one in found]

    def until(self, check: Any, what: str) -> Any:
        """Return the first true value of `check`."""
        clock = SystemClock()
        end = clock.monotonic() + PATIENCE_S
        while True:
            try:
                found = check()
            except WebDriverError as error:
                # The page has changed under our hands.
                if "stale element" not in str(error):
                    raise
                found = None
            if found:
                return found
            if clock.monotonic() > end:
                page = self.script("return document.body.innerText")[:3000]
                raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}\n{self.url}\n{page}")
            # The driver has no events; this thread has nothing else to do.
            subprocess.run(["/bin/sleep", str(_POLL_S)], check=True)

    def find(self, xpath: str) -> Element:
        """Return the first element that an XPath finds, once it is there."""
        found: Element = self.until(lambda: next(iter(self.all(xpath)), None), xpath)
        return found

    def press(self, label: str, within: str = "") -> None:
        """Press the button or link of this name, once it is there and usable."""
        self.find(
            f"{within}//button[normalize-space(.)='{label}' and not(@disabled) and not(@hidden)]"
            f" | {within}//a[normalize-space(.)='{label}']"
        ).click()

    def fill(self, label: str, text: str, within: str = "") -> None:
        """Write into the field of this label."""
        self.find(f"{within}//*[@id={within}//label[normalize-space(.)='{label}']/@for]").write(
            text
        )

    def shows(self, text: str) -> str:
        """Return the page's text once it has this in it."""
        found: str = self.until(
            lambda: (page := self.text) and text in page and page, f"the page shows {text!r}"
        )
        return found

    @property
    def text(self) -> str:
        """Everything that can be read."""
        return str(self.script("return document.body.innerText"))

    def settled(self) -> None:
        """Return once the page has all that it was loading."""
        self.until(
            lambda: self.script(
                "return document.querySelector('#top .bar') !== null"
                " && document.querySelector('#main .page') !== null"
                " && document.querySelector('[aria-busy]') === null"
            ),
            "the page is settled",
        )

    def size(self, width: int, height: int) -> None:
        """Look through a window of this size."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def colours(self, scheme: str) -> None:
        """Prefer `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.cdp("Emulation.setEmulatedMedia", features=[feature])

    def cdp(self, name: str, **parameters: Any) -> Any:
        """Send a command of Chromium's own protocol."""
        return self.command("POST", "goog/cdp/execute", {"cmd": name, "params": parameters})

    def picture(self, path: Path) -> None:
        """Save the whole page as it looks."""
        shot = self.cdp("Page.captureScreenshot", captureBeyondViewport=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Return what the page has complained about since the last time: errors, refusals."""
        entries = self.command("POST", "se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in {"SEVERE", "WARNING"}]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Run a browser with a fresh profile until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        [_program("chromedriver"), f"--port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            _wait_ready(http, driver)
            session = _begin(http, profile)
            try:
                yield Browser(http, session)
            finally:
                http.delete(f"/session/{session}")
    finally:
        driver.terminate()
        driver.wait(10)


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"no {name} on this machine"
    return found


def _begin(http: httpx.Client, profile: Path) -> str:
    options = {"binary": _program("chromium"), "args": [*_FLAGS, f"--user-data-dir={profile}"]}
    wanted = {
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL"},
        "timeouts": {"script": 60_000},
    }
    response = http.post("/session", content=json.dumps({"capabilities": {"alwaysMatch": wanted}}))
    value = response.json()["value"]
    if response.is_error:
        raise WebDriverError(value["message"])
    return str(value["sessionId"])


def _wait_ready(http: httpx.Client, driver: subprocess.Popen[bytes]) -> None:
    clock = SystemClock()
    end = clock.monotonic() + _START_S
    while clock.monotonic() < end and driver.poll() is None:
        try:
            if http.get("/status").json()["value"]["ready"]:
                return
        except httpx.TransportError:
            subprocess.run(["/bin/sleep", str(_POLL_S)], check=True)
    raise WebDriverError("chromedriver did not start")
