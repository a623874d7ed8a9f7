"""The console's files as a browser gets them: fenced in, kept for ever, and nobody else's."""

import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from darkbloom_gateway.console.site import PAGES

from tests.component.gateway.harness import Harness, gateway

STATIC = Path(str(files("darkbloom_gateway.console").joinpath("static")))
SIGN_IN = {
    "sign_in_authorize_url": "https://id.example/authorize",
    "sign_in_token_url": "https://token.id.example:8443/token",
    "sign_in_client_id": "console",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'{issuer}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
FENCE = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "strict-transport-security": "max-age=63072000",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
pytestmark = pytest.mark.asyncio(loop_scope="session")


def sources() -> Iterator[Path]:
    return (path for path in sorted(STATIC.rglob("*")) if path.is_file())


def assert_fenced(answer: httpx.Response, issuer: str = "") -> None:
    assert answer.headers["content-security-policy"] == POLICY.format(issuer=issuer)
    assert {name: answer.headers[name] for name in FENCE} == FENCE
    assert "set-cookie" not in answer.headers


async def assets(house: Harness) -> dict[str, str]:
    """Return the paths that the page names, by their last part."""
    page = await house.http.get("/console/")
    found = re.findall(r'(?:href|src)="(/console/[^"]+)"', page.text)
    return {path.rpartition("/")[2]: path for path in found}


@pytest.mark.parametrize("path", ["", *PAGES])
async def test_every_page_is_one_document_that_is_asked_for_again(
    house: Harness, path: str
) -> None:
    page = await house.http.get(f"/console/{path}")

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["cache-control"] == "no-cache"
    assert_fenced(page)
    known = {"if-none-match": f'"other", W/{page.headers["etag"]}'}
    again = await house.http.get(f"/console/{path}", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == page.headers["etag"]


@pytest.mark.parametrize("path", ["/", "/console"])
async def test_the_bare_address_leads_to_the_console(house: Harness, path: str) -> None:
    answer = await house.http.get(path)

    assert (answer.status_code, answer.headers["location"]) == (307, "/console/")
    assert_fenced(answer)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("main.js", "text/javascript; charset=utf-8"),
        ("app.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_assets_are_typed_and_kept_for_ever(house: Harness, name: str, kind: str) -> None:
    path = (await assets(house))[name]
    answer = await house.http.get(path)

    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert_fenced(answer)
    head = await house.http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))


async def test_every_file_is_served_under_the_version_of_the_page(house: Harness) -> None:
    base = (await assets(house))["app.css"].removesuffix("app.css")
    for path in sources():
        name = path.relative_to(STATIC).as_posix()
        answer = await house.http.get(base + name)
        assert answer.status_code == (404 if name == "index.html" else 200), name
        assert name == "index.html" or answer.content == path.read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/console/assets/0000000000000000/app.css",
        "/console/nothing",
        "/console/index.html",
        "/console/%2e%2e/config.py",
    ],
)
async def test_what_is_not_there_is_the_same_404_as_everywhere(house: Harness, path: str) -> None:
    answer = await house.http.get(path)

    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_page_takes_no_other_method(house: Harness) -> None:
    answer = await house.http.post("/console/")

    assert answer.status_code == 405
    assert {word.strip() for word in answer.headers["allow"].split(",")} == {"GET", "HEAD"}


async def test_without_an_issuer_the_page_is_told_so(house: Harness) -> None:
    told = (await house.http.get("/console/config.json")).json()

    assert told["sign_in"] is None
    assert told["environment"] == "development"


async def test_the_issuers_origin_is_the_one_stranger_that_scripts_may_call(
    valkey_url: str,
) -> None:
    async with gateway(valkey_url, **SIGN_IN) as mesh:
        page = await mesh.http.get("/console/")
        told = await mesh.http.get("/console/config.json")

    assert_fenced(page, " https://token.id.example:8443")
    assert_fenced(told, " https://token.id.example:8443")
    assert told.json()["sign_in"] == {
        "authorize_url": "https://id.example/authorize",
        "token_url": "https://token.id.example:8443/token",
        "client_id": "console",
    }


async def test_no_file_names_another_origin() -> None:
    allowed = {
        # Names, not addresses: a namespace, the quickstart of a text, sources in comments.
        "http://www.w3.org/2000/svg",
    }
    for path in sources():
        if path.parent.name == "vendor":
            continue
        found = set(re.findall(r"https?://[^\s\"'`<>)]+", path.read_text()))
        assert found <= allowed, path.name


async def test_nothing_is_inline_and_no_text_becomes_markup_or_code() -> None:
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"\son\w+=|<style|style=|javascript:", page)
    assert re.findall(r"<script[^>]*>", page) == [
        '<script type="module" src="{{assets}}/js/main.js">'
    ]
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    for path in sources():
        assert not re.search(sinks, path.read_text()), path.name


async def test_logins_are_kept_in_the_tab_and_nowhere_else() -> None:
    text = {path.name: path.read_text() for path in (STATIC / "js").rglob("*.js")}
    assert not [name for name, code in text.items() if "document.cookie" in code]
    kept = {
        key for code in text.values() for key in re.findall(r"localStorage\.\w+\((.+?)[,)]", code)
    }
    assert kept == {'"darkbloom.theme"', "HEAD"}


async def test_what_was_taken_from_elsewhere_is_what_it_says_it_is() -> None:
    said = (STATIC / "vendor" / "README.txt").read_text()
    vendored = [path for path in (STATIC / "vendor").iterdir() if path.suffix == ".js"]

    assert vendored
    for path in vendored:
        assert f"{path.name}\n" in said
        assert hashlib.sha256(path.read_bytes()).hexdigest() in said
