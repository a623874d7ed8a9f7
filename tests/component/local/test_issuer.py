"""The development issuer signs in whoever asks, on this machine only."""

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from darkbloom_local.issuer import ADMINISTRATOR, AUDIENCE, ISSUER, DevelopmentIssuer
from darkbloom_local.issuer_app import IssuerApp

BACK = "http://localhost:3000/callback"


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = IssuerApp(DevelopmentIssuer(tmp_path / "key.pem"), "http://issuer")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://issuer") as client:
        yield client


async def test_a_token_verifies_under_the_published_keys(
    http: httpx.AsyncClient, tmp_path: Path
) -> None:
    found = (await http.get("/.well-known/openid-configuration")).json()
    keys = jwt.PyJWKSet.from_dict((await http.get(urlsplit(found["jwks_uri"]).path)).json())
    token = DevelopmentIssuer(tmp_path / "key.pem").token(ADMINISTRATOR)

    claims = jwt.decode(token, keys.keys[0], ["ES256"], audience=AUDIENCE, issuer=ISSUER)
    assert claims["email"] == ADMINISTRATOR
    assert found["issuer"] == ISSUER
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600


async def test_a_browser_gets_a_code_and_changes_it_for_a_token_once(
    http: httpx.AsyncClient,
) -> None:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"verifier").digest()).rstrip(b"=")
    went = await http.get(
        "/authorize",
        params={
            "response_type": "code",
            "client_id": AUDIENCE,
            "redirect_uri": BACK,
            "state": "s",
            "code_challenge": challenge.decode(),
            "login_hint": "ann@example.org",
            "nonce": "once",
        },
        headers={"accept": "text/html"},
    )
    assert went.status_code == 302
    assert went.headers["location"].startswith(BACK)
    query = parse_qs(urlsplit(went.headers["location"]).query)
    assert query["state"] == ["s"]

    form = {
        "grant_type": "authorization_code",
        "code": query["code"][0],
        "redirect_uri": BACK,
        "code_verifier": "verifier",
    }
    given = (await http.post("/token", data=form)).json()
    claims = jwt.decode(given["id_token"], options={"verify_signature": False})
    assert (claims["email"], claims["nonce"]) == ("ann@example.org", "once")
    assert (await http.post("/token", data=form)).json() == {"error": "invalid_grant"}


@pytest.mark.parametrize("target", ["https://evil.example/", "", "javascript:alert(1)"])
async def test_nobody_is_sent_elsewhere(http: httpx.AsyncClient, target: str) -> None:
    query = {"client_id": AUDIENCE, "redirect_uri": target}
    assert (await http.get("/authorize", params=query)).status_code == 400
    assert (await http.get("/elsewhere")).status_code == 404


async def test_a_browser_that_names_nobody_is_asked_who_it_is(http: httpx.AsyncClient) -> None:
    query = {"client_id": AUDIENCE, "redirect_uri": BACK, "state": '"><script>'}
    page = await http.get("/authorize", params=query, headers={"accept": "text/html,*/*"})

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<script>" not in page.text
    assert 'name="state" value="&quot;&gt;&lt;script&gt;"' in page.text


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://evil.example", None),
        ("http://[", None),
    ],
)
async def test_only_a_page_of_this_machine_may_read_a_token(
    http: httpx.AsyncClient, origin: str, allowed: str | None
) -> None:
    answer = await http.post("/token", data={"code": "none"}, headers={"origin": origin})

    assert answer.headers.get("access-control-allow-origin") == allowed
