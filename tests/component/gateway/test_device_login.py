"""Device-code login (http-api §13, RFC 8628) over HTTP, with a real billing behind the gateway."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from darkbloom_edge.link import LINK_KIND, link_statement
from darkbloom_edge.signatures import P256Signer, from_base64, to_base64

from tests.component.billing.world import owner
from tests.component.gateway.people import People, people
from tests.stores import Postgres

pytestmark = pytest.mark.asyncio(loop_scope="session")
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
CODE, TOKEN, APPROVE = "/v1/device/code", "/v1/device/token", "/v1/device/approve"


def error(response: httpx.Response) -> tuple[int, str, str]:
    body = response.json()["error"]
    return response.status_code, body["type"], body["code"]


def same(status: int, code: str) -> tuple[int, str, str]:
    return status, code, code


async def begin(town: People, name: str = "studio") -> dict[str, Any]:
    made = await town.mesh.http.post(CODE, json={"machine_name": name})
    assert made.status_code == 200, made.text
    return dict(made.json())


async def poll(town: People, code: str) -> httpx.Response:
    return await town.mesh.http.post(TOKEN, json={"device_code": code})


async def shift(town: People, code: dict[str, Any], column: str, seconds: float) -> None:
    """Let time pass for one code."""
    async with owner(town.world.url) as database:
        await database.execute(
            f"UPDATE billing.device_code SET {column} = {column} - $2 * interval '1 second' "  # noqa: S608 - column is ours
            "WHERE user_code = $1",
            code["user_code"],
            seconds,
        )


async def token_of(town: People, name: str = "studio") -> str:
    code = await begin(town, name)
    await town.call("POST", APPROVE, json={"user_code": code["user_code"]})
    return str((await poll(town, code["device_code"])).json()["token"])


async def test_a_machine_is_approved_and_gets_its_token_once(town: People) -> None:
    code = await begin(town)
    assert len(code["device_code"]) == 64
    assert code["verification_uri"] == "https://console.example/link"
    assert (code["expires_in"], code["interval"]) == (900, 5)
    left, _, right = code["user_code"].partition("-")
    assert len(left) == len(right) == 4
    assert not set(left + right) & set("0O1IL")

    waiting = await poll(town, code["device_code"])
    assert waiting.json() == {"status": "authorization_pending"}
    await shift(town, code, "next_poll_at", 5)

    typed = f" {left.lower()} {right.lower()} "
    seen = await town.call("GET", CODE, params={"user_code": typed})
    assert seen.json()["machine_name"] == "studio"
    assert seen.json()["status"] == "pending"
    approved = (await town.call("POST", APPROVE, json={"user_code": typed})).json()
    assert approved["status"] == "approved"
    assert "studio" in approved["message"]

    given = (await poll(town, code["device_code"])).json()
    me = (await town.call("GET", "/v1/me")).json()
    assert given["status"] == "authorized"
    assert given["account_id"] == me["account_id"]
    assert given["token"].startswith("dbp-")
    assert len(given["token"]) == 4 + 64
    assert error(await poll(town, code["device_code"])) == same(404, "invalid_grant")


async def test_of_many_polls_at_once_one_gets_the_token(town: People) -> None:
    code = await begin(town)
    await town.call("POST", APPROVE, json={"user_code": code["user_code"]})

    answers = await asyncio.gather(*(poll(town, code["device_code"]) for _ in range(20)))

    tokens = [answer.json()["token"] for answer in answers if "token" in answer.json()]
    assert len(tokens) == 1
    assert {answer.status_code for answer in answers} == {200, 404}
    assert len((await town.call("GET", "/v1/me/tokens")).json()["data"]) == 1


async def test_polling_too_soon_is_slow_down(town: People) -> None:
    code = await begin(town)
    await poll(town, code["device_code"])

    early = await poll(town, code["device_code"])
    assert error(early) == same(429, "slow_down")
    assert 1 <= int(early.headers["retry-after"]) <= 5


async def test_codes_end_after_their_time(town: People) -> None:
    code = await begin(town)
    await shift(town, code, "expires_at", 901)

    assert error(await poll(town, code["device_code"])) == same(410, "expired_token")
    approve = await town.call("POST", APPROVE, json={"user_code": code["user_code"]})
    assert error(approve) == same(410, "expired_code")
    look = await town.call("GET", CODE, params={"user_code": code["user_code"]})
    assert error(look) == same(410, "expired_code")


async def test_json_that_curl_calls_a_form_is_json(town: People) -> None:
    code = await begin(town)
    form = {**town.bearer(""), "content-type": "application/x-www-form-urlencoded"}

    broken = await town.mesh.http.post(APPROVE, headers=form, content=b'{"user_code": ')
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request")
    body = f' {{"user_code": "{code["user_code"]}"}}'.encode()
    approved = await town.mesh.http.post(APPROVE, headers=form, content=body)
    assert (approved.status_code, approved.json()["status"]) == (200, "approved")


async def test_a_code_is_decided_on_once(town: People) -> None:
    code = await begin(town)
    body = {"user_code": code["user_code"]}
    assert (await town.call("POST", APPROVE, json=body)).status_code == 200
    assert (await town.call("POST", APPROVE, json=body)).status_code == 200, "the same again"

    other = await town.call("POST", APPROVE, email=town.bob, json=body)
    assert error(other) == same(409, "already_used")
    denied = await town.call("POST", APPROVE, json={**body, "approve": False})
    assert error(denied) == same(409, "already_used")


async def test_an_owner_may_refuse(town: People) -> None:
    code = await begin(town)
    body = {"user_code": code["user_code"], "approve": False}
    assert (await town.call("POST", APPROVE, json=body)).json()["status"] == "denied"

    assert error(await poll(town, code["device_code"])) == same(403, "access_denied")


@pytest.mark.parametrize("typed", ["ABCD-EFGH", "nonsense", "0000-0000", "A" * 200])
async def test_a_code_that_does_not_exist_is_404(town: People, typed: str) -> None:
    approve = await town.call("POST", APPROVE, json={"user_code": typed})
    assert error(approve) == same(404, "invalid_code")


@pytest.mark.parametrize("body", [{}, {"user_code": 7}, {"user_code": ""}, {"user_code": "é"}])
async def test_a_malformed_decision_is_400(town: People, body: dict[str, Any]) -> None:
    said = await town.call("POST", APPROVE, json=body)
    assert error(said) == same(400, "invalid_request")


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"device_code": 7}', b'{"device_code":""}'])
async def test_a_malformed_poll_is_400(town: People, body: bytes) -> None:
    said = await town.mesh.http.post(TOKEN, content=body)
    assert error(said) == same(400, "invalid_request")


async def test_only_a_person_approves(town: People) -> None:
    code = await begin(town)
    key, _ = await town.key()
    body = {"user_code": code["user_code"]}
    assert error(await town.call("POST", APPROVE, bearer=key, json=body)) == same(403, "forbidden")
    nobody = await town.mesh.http.post(APPROVE, json=body)
    assert error(nobody) == same(401, "authentication_error")


async def test_a_guesser_has_ten_tries(town: People) -> None:
    for number in range(10):
        typed = f"AAAA-AAA{'ABCDEFGHJK'[number]}"
        said = await town.call("POST", APPROVE, json={"user_code": typed})
        assert error(said) == same(404, "invalid_code")
    code = await begin(town)
    body = {"user_code": code["user_code"]}
    limited = await town.call("POST", APPROVE, json=body)
    assert error(limited) == same(429, "rate_limit_exceeded")
    assert limited.headers["retry-after"]
    assert (await town.call("POST", APPROVE, email=town.bob, json=body)).status_code == 200


async def test_one_network_has_ten_codes_open(town: People) -> None:
    for _ in range(10):
        await begin(town)
    full = await town.mesh.http.post(CODE)
    assert error(full) == same(429, "rate_limit_exceeded")
    async with owner(town.world.url) as database:
        sources = await database.fetch("SELECT DISTINCT source FROM billing.device_code")
    assert len(sources) == 1
    assert b"127.0.0.1" not in sources[0]["source"]


async def test_machines_that_are_signed_in_make_room_for_others(town: People) -> None:
    for number in range(12):
        assert (await token_of(town, f"mac-{number}")).startswith("dbp-")


async def test_the_shapes_of_rfc_8628_are_understood(town: People) -> None:
    http = town.mesh.http
    code = (await http.post(CODE, data={"client_id": "any", "machine_name": "mini"})).json()
    form = {"grant_type": GRANT, "device_code": code["device_code"], "client_id": "any"}

    pending = await http.post(TOKEN, data=form)
    assert (pending.status_code, pending.json()["error"]) == (400, "authorization_pending")
    soon = await http.post(TOKEN, data=form)
    assert (soon.status_code, soon.json()["error"]) == (400, "slow_down")
    await shift(town, code, "next_poll_at", 5)
    await town.call("POST", APPROVE, json={"user_code": code["user_code"]})
    given = await http.post(TOKEN, data=form)
    assert given.json()["token_type"] == "Bearer"
    assert given.json()["access_token"].startswith("dbp-")
    assert given.headers["cache-control"] == "no-store"
    again = await http.post(TOKEN, data=form)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    other = await http.post(TOKEN, data={**form, "grant_type": "password"})
    assert (other.status_code, other.json()["error"]) == (400, "unsupported_grant_type")
    late = (await http.post(CODE, data={"client_id": "any"})).json()
    await shift(town, late, "expires_at", 901)
    over = await http.post(TOKEN, data={**form, "device_code": late["device_code"]})
    assert (over.status_code, over.json()["error"]) == (400, "expired_token")


async def test_a_provider_token_asks_for_nothing_but_its_own(town: People) -> None:
    token = await token_of(town)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    asked = await town.call("POST", "/v1/chat/completions", bearer=token, json=body)
    assert error(asked) == same(401, "authentication_error")
    for path in ("/v1/models", "/v1/payments/balance", "/v1/key"):
        said = await town.call("GET", path, bearer=token)
        assert error(said) == same(401, "authentication_error")
    for path in ("/v1/me", "/v1/keys", "/v1/me/tokens"):
        assert error(await town.call("GET", path, bearer=token)) == same(403, "forbidden")
    key, _ = await town.key()
    for wrong in (key, town.issuer.token(town.alice)):
        said = await town.call("GET", "/v1/provider/token", bearer=wrong)
        assert error(said) == same(403, "forbidden")


async def test_tokens_are_listed_and_revoked_by_their_owner_or_themselves(town: People) -> None:
    first, second = await token_of(town, "one"), await token_of(town, "two")
    own = (await town.call("GET", "/v1/provider/token", bearer=first)).json()
    listed = (await town.call("GET", "/v1/me/tokens")).json()["data"]
    assert [row["machine_name"] for row in listed] == ["one", "two"]
    assert listed[0]["label"].startswith("device-")
    assert own["id"] == listed[0]["id"]
    assert first not in str(listed)

    path = f"/v1/me/tokens/{listed[0]['id']}"
    assert error(await town.call("DELETE", path, email=town.bob)) == same(404, "not_found")
    assert (await town.call("DELETE", path)).json() == {"status": "revoked"}
    assert error(await town.call("DELETE", path)) == same(404, "not_found")
    gone = await town.call("GET", "/v1/provider/token", bearer=first)
    assert error(gone) == same(401, "authentication_error")

    left = await town.call("DELETE", "/v1/provider/token", bearer=second)
    assert left.json() == {"status": "revoked"}
    assert (await town.call("GET", "/v1/me/tokens")).json()["data"] == []


class Machine:
    """A machine that links itself."""

    def __init__(self, town: People, token: str) -> None:
        self.town, self.token, self.signer = town, token, P256Signer.generate()

    async def nonce(self) -> bytes:
        body = {"identity_key": to_base64(self.signer.public)}
        made = await self.town.call(
            "POST", "/v1/provider/link/challenge", bearer=self.token, json=body
        )
        assert made.json()["expires_in"] == 300
        return from_base64(made.json()["nonce"])

    async def link(self, account: str, nonce: bytes, signer: P256Signer | None = None) -> Any:
        statement = link_statement(account, self.signer.public, nonce)
        body = {
            "identity_key": to_base64(self.signer.public),
            "nonce": to_base64(nonce),
            "signature": to_base64((signer or self.signer).sign(LINK_KIND, statement)),
        }
        return await self.town.call("POST", "/v1/provider/link", bearer=self.token, json=body)


async def test_a_machine_that_proves_its_key_is_linked(town: People) -> None:
    machine = Machine(town, await token_of(town))
    account = (await town.call("GET", "/v1/me")).json()["account_id"]

    linked = await machine.link(account, await machine.nonce())
    assert linked.json() == {"status": "linked", "account_id": account}
    again = await machine.link(account, await machine.nonce())
    assert again.status_code == 200

    async with owner(town.world.url) as database:
        found = await database.fetchrow(
            "SELECT * FROM billing.provider_link WHERE identity_key = $1", machine.signer.public
        )
        device = await database.fetchval(
            "SELECT hash FROM billing.fingerprint WHERE account_id = $1 AND kind = 'device'",
            account,
        )
    assert device == hashlib.sha256(machine.signer.public).digest()
    assert (found["account_id"], found["name"]) == (account, "studio")


async def test_a_link_needs_a_fresh_nonce_the_right_key_and_the_right_account(town: People) -> None:
    machine = Machine(town, await token_of(town))
    account = (await town.call("GET", "/v1/me")).json()["account_id"]
    refused = same(400, "invalid_request")

    assert error(await machine.link(account, b"n" * 32)) == refused
    used = await machine.nonce()
    assert error(await machine.link(account, used, P256Signer.generate())) == refused
    assert error(await machine.link(account, used)) == refused, "a nonce is good for one try"
    assert error(await machine.link("acct_other", await machine.nonce())) == refused
    late = await machine.nonce()
    async with owner(town.world.url) as database:
        await database.execute(
            "UPDATE billing.link_challenge SET expires_at = expires_at - interval '1 hour'"
        )
    assert error(await machine.link(account, late)) == refused
    for body in ({}, {"identity_key": "AA=="}, {"identity_key": 7}):
        said = await town.call(
            "POST", "/v1/provider/link/challenge", bearer=machine.token, json=body
        )
        assert said.status_code == 400
        assert said.json()["error"]["param"] == "identity_key"


async def test_a_machine_of_another_account_is_409(town: People) -> None:
    machine = Machine(town, await token_of(town))
    account = (await town.call("GET", "/v1/me")).json()["account_id"]
    await machine.link(account, await machine.nonce())

    code = await begin(town)
    await town.call("POST", APPROVE, email=town.bob, json={"user_code": code["user_code"]})
    machine.token = (await poll(town, code["device_code"])).json()["token"]
    other = (await town.call("GET", "/v1/me", email=town.bob)).json()["account_id"]
    assert error(await machine.link(other, await machine.nonce())) == same(409, "conflict")


async def test_strangers_are_limited_by_their_address(
    tmp_path: Path, cluster: Postgres, template: str, valkey_url: str
) -> None:
    with cluster.database(template) as url:
        async with people(tmp_path, url, valkey_url, address_rate=0.001, address_burst=3) as town:
            code = await begin(town)
            await poll(town, code["device_code"])
            form = {"grant_type": GRANT, "device_code": code["device_code"]}
            await town.mesh.http.post(TOKEN, data=form)
            limited = await poll(town, code["device_code"])
            assert error(limited) == same(429, "rate_limit_exceeded")
            assert limited.headers["retry-after"]
            slow = await town.mesh.http.post(TOKEN, data=form)
            assert (slow.status_code, slow.json()["error"]) == (400, "slow_down")
            refused = await town.mesh.http.post(CODE)
            assert error(refused) == same(429, "rate_limit_exceeded")
