"""The whole surface with everything configured: billing, a local Stripe, sealing keys, a log."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
from darkbloom.attestation.v1.attestation_pb2 import CodeRelease
from darkbloom.attestation.v1.log_service_pb2_grpc import add_LogServiceServicer_to_server
from darkbloom_edge.log import ReceiptsEntry, encode_entry
from darkbloom_edge.sealing_keys import KeyRing, encode_keys, rotated
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_local.issuer import DevelopmentIssuer, trust
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret

from tests.component.billing.operating import staff
from tests.component.billing.till import API_KEY as STRIPE_KEY
from tests.component.billing.till import SECRETS
from tests.component.billing.world import world
from tests.component.gateway.harness import Harness, gateway
from tests.component.gateway.key_sets import serving_keys
from tests.component.gateway.people import ADMIN, ADMIN_KEY
from tests.component.gateway.test_enrolment import TOPIC
from tests.fakes.transparency import FakeLog
from tests.stripe_local.running import local_stripe

WEBHOOK_SECRET = "webhook-" + "w" * 40


@dataclass
class Market:
    """A gateway, and credentials of every kind for it."""

    mesh: Harness
    issuer: DevelopmentIssuer
    _spare: str = ""
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def credential(self, scheme: str) -> dict[str, str]:
        """Return headers that a scheme asks for, of somebody new who has money."""
        if scheme == "admin_key":
            return bearer(ADMIN_KEY)
        if scheme == "webhook_token":
            return {"x-webhook-token": WEBHOOK_SECRET}
        if scheme == "stripe_signature":
            return {}
        login = bearer(self.issuer.token(await self._person()))
        if scheme == "login":
            return login
        if scheme == "provider_token":
            token, self._spare = self._spare, ""
            return bearer(token or await self._token(login))
        made = await self._post("/v1/keys", login)
        return {"x-api-key": made["key"]} if scheme == "x_api_key" else bearer(made["key"])

    async def stock_up(self) -> None:
        """Log one machine in before a network has asked for more codes than it may."""
        self._spare = await self._token(bearer(self.issuer.token(await self._person())))

    async def _person(self) -> str:
        email = f"buyer-{next(self._numbers)}@darkbloom.invalid"
        (
            await self.mesh.http.get("/v1/me", headers=bearer(self.issuer.token(email)))
        ).raise_for_status()
        await self._post(
            "/v1/admin/credit",
            {**bearer(ADMIN_KEY), "idempotency-key": email},
            {"email": email, "amount_usd": "10.00"},
        )
        return email

    async def _token(self, login: dict[str, str]) -> str:
        code = await self._post("/v1/device/code", {})
        await self._post("/v1/device/approve", login, {"user_code": code["user_code"]})
        given = await self._post("/v1/device/token", {}, {"device_code": code["device_code"]})
        return str(given["token"])

    async def _post(
        self, path: str, headers: dict[str, str], body: dict[str, str] | None = None
    ) -> dict[str, str]:
        response = await self.mesh.http.post(path, headers=headers, json=body or {})
        assert response.status_code < httpx.codes.BAD_REQUEST, response.text
        found = response.json()
        assert isinstance(found, dict)
        return found


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@asynccontextmanager
async def market(
    directory: Path, database_url: str, valkey_url: str, **changes: object
) -> AsyncIterator[Market]:
    """Run it; nobody is limited."""
    clock = SystemClock()
    issuer = DevelopmentIssuer(directory / "issuer.pem")
    (directory / "admin-key").write_text(ADMIN_KEY)
    now = clock.now()
    keys = rotated(KeyRing(), b"\x01" * 32, now, lead=timedelta(0), grace=timedelta(days=1))
    (directory / "sealing").write_bytes(encode_keys(keys))
    signer = Ed25519Signer.generate()
    log = FakeLog(signer)
    entry = ReceiptsEntry(batch="bat_0", root_hash="0" * 64, size=1, time="2026-01-01T00:00:00Z")
    log.entries = [encode_entry(entry)]
    async with serving_keys(lambda: issuer.jwks) as port, local_stripe(clock) as stripe:
        (directory / "issuers.json").write_text(json.dumps(trust(port)))
        async with (
            world(
                database_url,
                clock=clock,
                login_issuers_file=directory / "issuers.json",
                admin_emails=(ADMIN,),
                stripe_secret_key=Secret(STRIPE_KEY),
                stripe_webhook_secret=Secret(SECRETS["payments"]),
                stripe_connect_webhook_secret=Secret(SECRETS["transfers"]),
                stripe_connect_accounts_webhook_secret=Secret(SECRETS["accounts"]),
                stripe_api_base=stripe.url,
                stripe_timeout_s=20.0,
            ) as billing,
            gateway(
                valkey_url,
                partial(add_LogServiceServicer_to_server, log),
                billing_target=billing.service.listeners["grpc"],
                admin_key_file=directory / "admin-key",
                sealing_keys_file=directory / "sealing",
                enrolment_base_url="https://mdm.example.org",
                enrolment_push_topic=TOPIC,
                mdm_webhook_secret=Secret(WEBHOOK_SECRET),
                financial_rate=1e6,
                financial_burst=1_000_000,
                address_rate=1e6,
                address_burst=1_000_000,
                request_rate=1e6,
                request_burst=1_000_000,
                input_tokens=0,
                output_tokens=0,
                **changes,
            ) as mesh,
        ):
            mesh.attestation.releases = [
                CodeRelease(
                    code_release=f"sha256:{'a' * 64}",
                    version="1.0.0",
                    platform="any",
                    active=True,
                    runtime_hash="a" * 64,
                )
            ]
            operators = await staff(billing)
            for budget in ("promo", "invite"):
                await operators.fund(budget, 10**10)
            found = Market(mesh, issuer)
            await found.stock_up()
            yield found
