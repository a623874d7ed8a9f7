"""Somebody in front of the console."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
from darkbloom_local.issuer import DEVELOPER
from darkbloom_local.mesh import Mesh

from tests.browser.driver import DESKTOP, PHONE, Browser

OWNER = "owner@example.org"
"""Whose the machine is."""
_AXE = files("axe_core_python").joinpath("axe.min.js")
_RUN_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ['violations']}).then(
  (found) => done(found.violations.map((one) => ({
    id: one.id, impact: one.impact,
    nodes: one.nodes.map((node) => node.html.slice(0, 200) + ' ' + (node.any[0]?.message ?? '')),
  }))),
  (error) => done([{id: 'axe itself', impact: 'critical', nodes: [String(error)]}]),
);
"""
_WIDE = """
const most = document.documentElement.clientWidth;
return [...document.querySelectorAll('body *')].filter((one) => {
  const box = one.getBoundingClientRect();
  return box.width && box.right > most + 1 && !one.closest('.scroll, pre, .skip, .unseen, svg');
}).map((one) => one.outerHTML.slice(0, 120));
"""


@dataclass(frozen=True)
class Person:
    """A browser, and the mesh that it looks at."""

    browser: Browser
    mesh: Mesh
    pictures: Path

    def go(self, page: str) -> None:
        """Open a page of the console and wait until it has everything."""
        self.browser.open(f"{self.mesh.url}/console/{page}")
        self.browser.settled()

    def sign_in(self, email: str = DEVELOPER) -> None:
        """Sign in at the development issuer, as who one is."""
        self.browser.press("Sign in")
        self.browser.fill("E-mail", email)
        self.browser.press("Sign in")
        self.browser.find("//button[.='Sign out']")
        self.browser.settled()

    def api(self, path: str, *, email: str = DEVELOPER) -> Any:
        """Ask the gateway past the page, for what the page ought to show."""
        login = {"authorization": f"Bearer {self.mesh.login_token(email)}"}
        answer = httpx.get(f"{self.mesh.url}{path}", headers=login, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()

    def look(self, name: str) -> None:
        """Keep pictures of this page: a phone in the dark, a desk in the light."""
        for size, (width, height), colours in (
            ("phone", PHONE, "dark"),
            ("desk", DESKTOP, "light"),
        ):
            self.browser.size(width, height)
            self.browser.colours(colours)
            self.browser.picture(self.pictures / f"{name}-{size}-{colours}.png")

    def faults(self) -> list[str]:
        """Return what keeps people out of this page: serious faults of accessibility, sizes."""
        self.browser.script(_AXE.read_text())
        found: list[str] = []
        for size, colours in ((PHONE, "dark"), (DESKTOP, "light")):
            self.browser.size(*size)
            self.browser.colours(colours)
            found += [
                f"{size[0]} {colours}: {one['id']}: {node}"
                for one in self.browser.wait_script(_RUN_AXE)
                if one["impact"] in {"serious", "critical"}
                for node in one["nodes"]
            ]
            found += [f"{size[0]}: too wide: {one}" for one in self.browser.script(_WIDE)]
        return found
