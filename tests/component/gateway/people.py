"""A gateway over a real billing, and an issuer whose logins it accepts."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from darkbloom_local.issuer import DevelopmentIssuer, trust
from darkbloom_mesh.clock import SystemClock

from tests.component.billing.world import World, world
from tests.component.gateway.harness import Harness, gateway
from tests.component.gateway.key_sets import serving_keys

ADMIN_KEY = "operator-" + "k" * 40
ADMIN = "admin@darkbloom.invalid"
_names = itertools.count(1)


@dataclass
class People:
    """Somebody's view of one mesh without a fleet."""

    mesh: Harness
    world: World
    issuer: DevelopmentIssuer
    alice: str = field(default_factory=lambda: f"alice-{next(_names)}@darkbloom.invalid")
    bob: str = field(default_factory=lambda: f"bob-{next(_names)}@darkbloom.invalid")

    def strangers(self) -> "People":
        """Return the same place with other people, who have nothing yet."""
        return People(self.mesh, self.world, self.issuer)

    def bearer(self, email: str = "") -> dict[str, str]:
        """Return the header of a signed-in person."""
        return {"authorization": f"Bearer {self.issuer.token(email or self.alice)}"}

    async def call(
        self, method: str, path: str, *, email: str = "", bearer: str | None = None, **more: Any
    ) -> httpx.Response:
        """Send a request as a person, or with exactly this credential."""
        headers = self.bearer(email) if bearer is None else {"authorization": f"Bearer {bearer}"}
        return await self.mesh.http.request(method, path, headers=headers, **more)

    async def key(self, email: str = "", **settings: Any) -> tuple[str, dict[str, Any]]:
        """Create a key; return its secret and its record."""
        made = await self.call("POST", "/v1/keys", email=email, json=settings)
        assert made.status_code == 200, made.text
        return made.json()["key"], made.json()["data"]

    async def status(self, secret: str) -> int:
        """Return what a plain read with that key answers."""
        return (await self.call("GET", "/v1/models", bearer=secret)).status_code


@asynccontextmanager
async def people(
    tmp_path: Path, database_url: str, valkey_url: str, **changes: Any
) -> AsyncIterator[People]:
    """Run billing with an issuer, and one gateway over it; changes of keys are not limited."""
    issuer = DevelopmentIssuer(tmp_path / "issuer.pem")
    admin_key = tmp_path / "admin-key"
    admin_key.write_text(ADMIN_KEY)
    async with serving_keys(lambda: issuer.jwks) as port:
        issuers = tmp_path / "issuers.json"
        issuers.write_text(json.dumps(trust(port)))
        async with (
            world(
                database_url,
                clock=SystemClock(),
                login_issuers_file=issuers,
                admin_emails=(ADMIN,),
            ) as billing,
            gateway(
                valkey_url,
                **{
                    "billing_target": billing.service.listeners["grpc"],
                    "admin_key_file": admin_key,
                    "financial_rate": 1000.0,
                    "financial_burst": 1000,
                    "address_rate": 1000.0,
                    "address_burst": 1000,
                    "console_url": "https://console.example",
                    **changes,
                },
            ) as mesh,
        ):
            yield People(mesh, billing, issuer)
