"""Ways to get every error that `docs/errors.md` lists for inference, by real requests."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from darkbloom.billing.v1.ledger_pb2 import HoldResult
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.sealing_keys import KeyRing

from tests.component.gateway.harness import BEARER, Harness
from tests.component.gateway.neighbours import API_KEY
from tests.component.gateway.test_connections import line
from tests.fakes.identity import LOGIN_TOKEN
from tests.fakes.router import scripted
from tests.sealed_client import SealedCall, chat_body

PAGE = Path(__file__).parents[3] / "docs/errors.md"
MESSAGES = "/v1/messages"
HI = [{"role": "user", "content": "hi"}]
OFFERS = "end-to-end mode:"
"""How rows begin that only offers answer with; `tests/mesh/test_end_to_end.py` has those."""
Row = tuple[int, str, str, bool]
"""Status, type, code, whether `Retry-After` comes along."""


@dataclass
class Scene:
    """One gateway, whose neighbours have seen nothing yet, and the route that is asked."""

    mesh: Harness
    path: str
    patch: pytest.MonkeyPatch

    async def ask(self, secret: str = API_KEY, **changes: Any) -> httpx.Response:
        """Ask, with a body that both shapes of error may be had by."""
        body = {"model": "tiny", "messages": HI, "max_tokens": 8, **changes}
        headers = {"authorization": f"Bearer {secret}"}
        return await self.mesh.http.post(self.path, json=body, headers=headers)

    async def key(self, name: str, **settings: Any) -> httpx.Response:
        """Ask with a key of an account of its own."""
        secret = f"sk-db-{name}"
        asked = settings.pop("asked", {})
        key_hash = self.mesh.billing.add_key(secret, **settings)
        self.mesh.billing.keys[key_hash].account_id = f"acct_{name}_{self.path}"
        return await self.ask(secret, **asked)

    async def refused(self, reason: str, debt: int = 0) -> httpx.Response:
        """Ask while the ledger refuses the hold."""
        self.mesh.billing.refusal = HoldResult(
            refusal=ErrorReason.Value(f"ERROR_REASON_{reason}"),
            required_micros=900,
            available_micros=3,
        )
        self.mesh.billing.debt_micros = debt
        return await self.ask()

    async def sealed(self, changes: dict[str, str] | None = None, **call: Any) -> httpx.Response:
        """Post a sealed request, whose envelope may be changed."""
        made = await self.envelope(**call)
        content = json.dumps({**made.envelope, **(changes or {})})
        return await self.mesh.http.post(self.path, content=content, headers=made.headers)

    async def envelope(self, **call: Any) -> SealedCall:
        """Seal a request to the published key."""
        page = (await self.mesh.http.get("/v1/encryption-key")).json()
        return SealedCall(page, API_KEY, call.pop("body", chat_body()), path=self.path, **call)


def breaks(*_: object, **__: object) -> None:
    """Stand for a function with a fault."""
    raise ValueError("nothing to see")


async def bad_json(scene: Scene) -> httpx.Response:
    return await scene.mesh.http.post(scene.path, content=b"{", headers=BEARER)


async def above_burst(scene: Scene) -> httpx.Response:
    return await scene.key("burst", output_tpm_limit=4)


async def prompt_above_burst(scene: Scene) -> httpx.Response:
    return await scene.key("prompt", input_tpm_limit=1)


async def too_often(scene: Scene) -> httpx.Response:
    await scene.key("often", rpm_limit=1)
    return await scene.ask("sk-db-often")


async def not_an_envelope(scene: Scene) -> httpx.Response:
    return await scene.sealed({"ciphertext": "!"})


async def another_route(scene: Scene) -> httpx.Response:
    made = await scene.envelope(header=b"short")
    return await made.post(scene.mesh.http)


async def long_ago(scene: Scene) -> httpx.Response:
    return await scene.sealed(time_ms=0)


async def again(scene: Scene) -> httpx.Response:
    made = await scene.envelope(body=b"{}")
    await made.post(scene.mesh.http)
    return await made.post(scene.mesh.http)


async def another_key(scene: Scene) -> httpx.Response:
    return await scene.sealed({"kid": "0123456789abcdef"})


async def another_box(scene: Scene) -> httpx.Response:
    return await scene.sealed({"ciphertext": "eHh4" * 30})


async def nobody(scene: Scene) -> httpx.Response:
    return await scene.ask("sk-db-nobody")


async def no_money(scene: Scene) -> httpx.Response:
    return await scene.refused("INSUFFICIENT_FUNDS")


async def in_debt(scene: Scene) -> httpx.Response:
    return await scene.refused("ACCOUNT_FROZEN", debt=7)


async def over_its_cap(scene: Scene) -> httpx.Response:
    return await scene.refused("KEY_CAP_REACHED")


async def frozen(scene: Scene) -> httpx.Response:
    return await scene.refused("ACCOUNT_FROZEN")


async def an_api_key_at_the_door_of_logins(scene: Scene) -> httpx.Response:
    return await scene.mesh.http.get("/v1/keys", headers=BEARER)


async def closing(scene: Scene) -> httpx.Response:
    scene.patch.setattr(scene.mesh.billing, "closing", True)
    return await scene.ask()


async def outside_the_list(scene: Scene) -> httpx.Response:
    return await scene.key("narrow", allowed_models=["other"])


async def no_such_model(scene: Scene) -> httpx.Response:
    return await scene.ask(model="nobody")


async def no_such_thing(scene: Scene) -> httpx.Response:
    scene.mesh.billing.identity.add_login(LOGIN_TOKEN, account_id="acct_login")
    headers = {"authorization": f"Bearer {LOGIN_TOKEN}"}
    return await scene.mesh.http.get("/v1/key", headers=headers)


async def no_such_route(scene: Scene) -> httpx.Response:
    return await scene.mesh.http.post(f"{scene.path}/none", headers=BEARER)


async def another_method(scene: Scene) -> httpx.Response:
    return await scene.mesh.http.put(scene.path, headers=BEARER)


async def a_body_that_stops(scene: Scene) -> httpx.Response:
    async with line(scene.mesh) as end:
        end.say(
            f"POST {scene.path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n"
            f"authorization: {BEARER['authorization']}\r\n\r\n{{".encode()
        )
        status, headers, body = await end.answer()
    return httpx.Response(status, headers=headers, content=body)


async def without_machines(scene: Scene) -> httpx.Response:
    headers = {**BEARER, "x-darkbloom-route": "self"}
    body = {"model": "tiny", "messages": HI, "max_tokens": 8}
    return await scene.mesh.http.post(scene.path, json=body, headers=headers)


async def too_large(scene: Scene) -> httpx.Response:
    return await scene.ask(metadata={"user_id": "x" * 200_000})


async def too_many_headers(scene: Scene) -> httpx.Response:
    headers = {f"x-{number}": "y" for number in range(200)}
    return await scene.mesh.http.post(scene.path, headers=headers)


async def a_fault_of_ours(scene: Scene) -> httpx.Response:
    scene.patch.setattr("darkbloom_gateway.reading.make_plan", breaks)
    return await scene.ask()


async def an_answer_that_cannot_be_sealed(scene: Scene) -> httpx.Response:
    def seal(*_: object, **__: object) -> bytes:
        raise MalformedError("no")

    scene.patch.setattr("darkbloom_edge.sealed_request.AnswerSealer.seal", seal)
    return await scene.sealed(body=b"{}")


async def a_provider_that_lies(scene: Scene) -> httpx.Response:
    scene.mesh.router.scripts = [scripted("one", tamper=0)]
    return await scene.ask()


async def an_alias_of_nothing(scene: Scene) -> httpx.Response:
    return await scene.ask(model="gone")


async def no_store(scene: Scene) -> httpx.Response:
    scene.patch.setattr(scene.mesh.billing, "store_down", True)
    return await scene.ask(f"sk-db-store{scene.path}")


async def no_sealing_key(scene: Scene) -> httpx.Response:
    made = await scene.envelope()
    scene.patch.setattr(scene.mesh.worker.ring, "_ring", KeyRing())
    return await made.post(scene.mesh.http)


async def silence(scene: Scene) -> httpx.Response:
    scene.mesh.router.scripts = [scripted("one", "two", pause=asyncio.Event())]
    return await scene.ask()


INVALID, SEALED, LIMITED = (
    "invalid_request_error",
    "invalid_sealed_envelope",
    "rate_limit_exceeded",
)


@dataclass(frozen=True)
class Case:
    """One way to an error, and all that is said then."""

    way: Callable[[Scene], Awaitable[httpx.Response]]
    status: int
    kind: str
    code: str = ""
    param: str | None = None
    retry_after: str | None = None
    facts: tuple[tuple[str, int], ...] = ()
    openai: bool = False
    """Said before, or beside, the route of a dialect."""

    @property
    def row(self) -> Row:
        return self.status, self.kind, self.code or self.kind, self.retry_after is not None


MONEY = (("required_micro_usd", 900), ("available_micro_usd", 3))
CASES = [
    Case(bad_json, 400, INVALID),
    Case(above_burst, 400, INVALID, "above_rate_limit", facts=(("limit", 4), ("requested", 8))),
    Case(not_an_envelope, 400, SEALED),
    Case(another_route, 400, SEALED, "sealed_header_mismatch"),
    Case(long_ago, 400, SEALED, "sealed_request_expired"),
    Case(again, 400, SEALED, "replayed_envelope"),
    Case(another_key, 400, "kid_mismatch"),
    Case(another_box, 400, "decryption_failed"),
    Case(nobody, 401, "authentication_error"),
    Case(no_money, 402, "insufficient_funds", "insufficient_quota", facts=MONEY),
    Case(in_debt, 402, "insufficient_funds", "account_frozen", facts=(("debt_micro_usd", 7),)),
    Case(over_its_cap, 402, "insufficient_quota", facts=MONEY),
    Case(an_api_key_at_the_door_of_logins, 403, "forbidden", openai=True),
    Case(frozen, 403, "forbidden", "account_frozen"),
    Case(closing, 403, "account_pending_deletion"),
    Case(outside_the_list, 403, "model_not_allowed", param="model"),
    Case(no_such_model, 404, "model_not_found", param="model"),
    Case(no_such_thing, 404, "not_found", openai=True),
    Case(no_such_route, 404, INVALID),
    Case(another_method, 405, INVALID),
    Case(a_body_that_stops, 408, INVALID),
    Case(without_machines, 409, "no_linked_machine"),
    Case(too_large, 413, INVALID),
    Case(prompt_above_burst, 413, INVALID, "payload_too_large"),
    Case(too_often, 429, LIMITED, retry_after="60"),
    Case(too_many_headers, 431, INVALID, openai=True),
    Case(a_fault_of_ours, 500, "internal_error"),
    Case(an_answer_that_cannot_be_sealed, 500, "encryption_failed"),
    Case(a_provider_that_lies, 502, "provider_error"),
    Case(an_alias_of_nothing, 503, "model_unavailable", param="model"),
    Case(no_store, 503, "service_unavailable", retry_after="5"),
    Case(no_sealing_key, 503, "encryption_unavailable"),
    Case(silence, 504, "timeout"),
]


def table(title: str) -> list[list[str]]:
    """Return the cells of every table below a heading of the page."""
    text = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows]


def rows(title: str) -> set[Row]:
    """Return the errors that a section of the page lists, but those of offers alone."""
    return {
        (int(status), kind, code or kind, retry == "yes")
        for status, kind, code, retry, when in (row for row in table(title) if row[0].isdigit())
        if not when.startswith(OFFERS)
    }
