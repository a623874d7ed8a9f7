"""Billing on a loopback socket over a real PostgreSQL, with everything a test signs with."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import grpc
from darkbloom.attestation.v1 import attestation_pb2, attestation_service_pb2
from darkbloom.attestation.v1.attestation_service_pb2_grpc import (
    AttestationServiceServicer,
    add_AttestationServiceServicer_to_server,
)
from darkbloom.billing.v1 import account_service_pb2 as accounts_pb
from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1 import ledger_service_pb2 as ledger_pb
from darkbloom.billing.v1 import price_service_pb2 as prices_pb
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom.billing.v1.ledger_service_pb2_grpc import LedgerServiceStub
from darkbloom.billing.v1.payment_service_pb2_grpc import PaymentServiceStub
from darkbloom.billing.v1.price_service_pb2_grpc import PriceServiceStub
from darkbloom.billing.v1.report_service_pb2_grpc import ReportServiceStub
from darkbloom.common.v1 import price_pb2
from darkbloom_billing.app import wire
from darkbloom_billing.audit import Report, audit
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.store.database import Database
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.ids import id_text
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64
from darkbloom_edge.terminal import Terminal, sign_terminal
from darkbloom_edge.transcript import Digests
from darkbloom_edge.verdict import Verdict, sign_verdict
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.serve import Service
from darkbloom_mesh.testing import FakeClock, serve_ephemeral

BUILD = "build-a"
CONSUMER = "acct_consumer"
PROVIDER = "acct_provider"
K = to_base64(b"k" * 32)
ROLE = "darkbloom_billing"
READY_S = 10.0
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
_HEX = "0" * 64
_names = itertools.count(1)


class FakeAttestation(AttestationServiceServicer):
    """Lists the keys that a test gives it; counts the questions; can be away."""

    def __init__(self) -> None:
        self.verdict_keys: list[attestation_pb2.SigningKey] = []
        self.receipt_keys: list[attestation_pb2.SigningKey] = []
        self.away = False
        self.asked = 0

    async def ListVerdictKeys(self, request: Any, context: Any) -> Any:
        await self._ask(context)
        return attestation_service_pb2.ListVerdictKeysResponse(keys=self.verdict_keys)

    async def ListReceiptKeys(self, request: Any, context: Any) -> Any:
        await self._ask(context)
        return attestation_service_pb2.ListReceiptKeysResponse(keys=self.receipt_keys)

    async def _ask(self, context: Any) -> None:
        self.asked += 1
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")


def signing_key(signer: Ed25519Signer) -> attestation_pb2.SigningKey:
    return attestation_pb2.SigningKey(key_id=signer.key_id, public_key=signer.public)


def request_id(number: int | None = None) -> str:
    return id_text("req", (next(_names) if number is None else number).to_bytes(16, "big"))


def attempt_id(number: int = 1) -> str:
    return id_text("att", number.to_bytes(16, "big"))


@dataclass(kw_only=True)
class World:
    """One running billing and its neighbours."""

    ledger: LedgerServiceStub
    accounts: AccountServiceStub
    prices: PriceServiceStub
    payments: PaymentServiceStub
    reports: ReportServiceStub
    clock: Clock
    url: str
    service: Service
    attestation: FakeAttestation
    verdicts: Ed25519Signer
    channel: grpc.aio.Channel
    receipts: Ed25519Signer = field(default_factory=Ed25519Signer.generate)
    machine: P256Signer = field(default_factory=P256Signer.generate)

    async def account(self, account_id: str, micros: int = 0) -> None:
        await self.accounts.CreateAccount(
            accounts_pb.CreateAccountRequest(account_id=account_id, display_name="x"), timeout=30
        )
        if micros:
            await self.accounts.Grant(
                accounts_pb.GrantRequest(
                    request_id=f"grant_{next(_names)}", account_id=account_id, amount_micros=micros
                ),
                timeout=30,
            )

    async def people(self, micros: int = 1_000_000) -> None:
        """A consumer with money, and a provider whose machine is linked."""
        await self.account(CONSUMER, micros)
        await self.account(PROVIDER)
        await self.link(self.machine, PROVIDER)
        await self.price("base", 10_000_000, 20_000_000)

    async def link(self, machine: P256Signer, account_id: str) -> None:
        await self.accounts.LinkProvider(
            accounts_pb.LinkProviderRequest(
                identity_key=machine.public, account_id=account_id, name="mac"
            ),
            timeout=30,
        )

    async def key(self, secret: bytes, limit: int | None = None) -> str:
        response = await self.accounts.CreateKey(
            accounts_pb.CreateKeyRequest(
                account_id=CONSUMER,
                key_hash=hashlib.sha256(secret).digest(),
                label="sk-…",
                limit_micros=limit,
            ),
            timeout=30,
        )
        return response.key.key_id

    async def price(self, name: str, inp: int, out: int, **more: Any) -> price_pb2.PriceRow:
        response = await self.prices.SetPrice(
            prices_pb.SetPriceRequest(
                request_id=name, build=BUILD, input_micros=inp, output_micros=out, **more
            ),
            timeout=30,
        )
        return response.price

    async def balance(self, account_id: str) -> tuple[int, int, int]:
        """Return (available, earned, held)."""
        b = await self.accounts.GetBalance(
            accounts_pb.GetBalanceRequest(account_id=account_id), timeout=30
        )
        return b.balance_micros, b.withdrawable_micros, b.held_micros

    async def maturing(self, account_id: str) -> int:
        """Return what an account has earned that is not mature."""
        async with owner(self.url) as db:
            return int(
                await db.fetchval(
                    "SELECT cr - dr FROM ledger.account WHERE path = $1",
                    f"user:{account_id}:maturing",
                )
            )

    async def hold(self, *orders: ledger_pb2.HoldOrder) -> list[ledger_pb2.HoldResult]:
        return list(
            (await self.ledger.Hold(ledger_pb.HoldRequest(orders=orders), timeout=30)).results
        )

    async def settle(self, *items: ledger_pb2.Settlement) -> list[ledger_pb2.SettlementResult]:
        request = ledger_pb.SettleHoldsRequest(settlements=items)
        return list((await self.ledger.SettleHolds(request, timeout=30)).results)

    async def release(self, *ids: str) -> list[ledger_pb2.SettlementResult]:
        releases = [ledger_pb2.Release(request_id=name, reason=2) for name in ids]
        request = ledger_pb.ReleaseHoldsRequest(releases=releases)
        return list((await self.ledger.ReleaseHolds(request, timeout=30)).results)

    def order(self, name: str | None = None, **more: Any) -> ledger_pb2.HoldOrder:
        fields: dict[str, Any] = {
            "request_id": name or request_id(),
            "account_id": CONSUMER,
            "build": BUILD,
            "prompt_bound": 100,
            "output_bound": 50,
            "requested_model": "alias",
        }
        return ledger_pb2.HoldOrder(**{**fields, **more})

    def verdict(self, **more: Any) -> tuple[Verdict, price_pb2.SignedDocument]:
        signer = more.pop("signer", self.verdicts)
        issued = more.pop("issued", self.clock.now() - timedelta(minutes=1))
        machine = more.pop("machine", self.machine)
        fields: dict[str, Any] = {
            "verdict_id": id_text("ver", b"v" * 16),
            "provider_id": id_text("prov", b"p" * 16),
            "identity_key": machine.public_text,
            "encryption_key": K,
            "trust_level": "none",
            "admission": "development",
            "evidence": [],
            "code_release": "sha256:x",
            "issued_at": rfc3339(issued),
            "expires_at": rfc3339(issued + timedelta(minutes=15)),
        }
        verdict = Verdict(**{**fields, **more})
        document, signature = sign_verdict(verdict, signer)
        return verdict, price_pb2.SignedDocument(
            document=document, signature=signature, key_id=signer.key_id
        )

    def terminal(self, request: str, **more: Any) -> price_pb2.SignedDocument:
        machine = more.pop("machine", self.machine)
        fields: dict[str, Any] = {
            "request_id": request,
            "attempt_id": attempt_id(),
            "build": BUILD,
            "weight_hash": "w",
            "prompt_tokens": 40,
            "completion_tokens": 20,
            "cached_tokens": 0,
            "reasoning_tokens": 0,
            "chunks": 3,
            "finish_reason": "stop",
            "encryption_key": K,
            "verdict_id": id_text("ver", b"v" * 16),
            "sealed_to": 1,
            "digests": Digests(request=_HEX, content=_HEX, reasoning=_HEX, tool_calls=()),
            "outcome": "completed",
        }
        document, signature = sign_terminal(Terminal(**{**fields, **more}), machine)
        return price_pb2.SignedDocument(document=document, signature=signature)

    def settlement(self, request: str, **more: Any) -> ledger_pb2.Settlement:
        opened = more.pop("opened", (40, 20))
        fields: dict[str, Any] = {
            "request_id": request,
            "attempt_id": attempt_id(),
            "verdict": self.verdict()[1],
            "terminal": self.terminal(request),
            "opened": ledger_pb2.OpenedCounts(
                frames=3, prompt_tokens=opened[0], completion_tokens=opened[1]
            ),
        }
        fields |= more
        return ledger_pb2.Settlement(**{k: v for k, v in fields.items() if v is not None})

    async def audit(self) -> Report:
        database = await open_database(self.url)
        try:
            now = self.clock.now()
            return await audit(database, now=now, receipts_due=now)
        finally:
            await database.close()

    async def sound(self) -> None:
        """The books are in order."""
        report = await self.audit()
        assert report.violations == ()


async def open_database(url: str, role: str = ROLE) -> Database:
    return await Database.open(
        Secret(url),
        role=role,
        connections=8,
        timeout_s=10,
        clock=SystemClock(),
        uniform=lambda: 0.5,
    )


@asynccontextmanager
async def owner(url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """Connect as the superuser that owns everything."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def world(url: str, *, clock: Clock | None = None, **settings: Any) -> AsyncIterator[World]:
    """Run billing over a migrated database; its clock stands still unless one is given."""
    clock = clock or FakeClock(START)
    attestation = FakeAttestation()
    verdicts = Ed25519Signer.generate()
    attestation.verdict_keys.append(signing_key(verdicts))
    register = partial(add_AttestationServiceServicer_to_server, attestation)
    async with serve_ephemeral(register) as target:
        config = BillingConfig(
            **{
                "environment": "development",
                "database_url": Secret(url),
                "listen": "127.0.0.1:0",
                "attestation_target": target,
                "drain_grace_s": 0.0,
                "poll_period_s": 0.2,
                "heartbeat_s": 0.2,
                **settings,
            }
        )
        service = Service(config, room="billing", version="test", signals=False)
        async with service:
            await wire(config, service, clock)
            serving = service.spawn(service.wait(), name="serving")
            dialled = channel(
                service.listeners["grpc"], mesh_token=config.mesh_token(), room="test"
            )
            async with dialled:
                # A bound port refuses until its server has started.
                async with asyncio.timeout(READY_S):
                    await dialled.channel_ready()
                yield World(
                    ledger=LedgerServiceStub(dialled),
                    accounts=AccountServiceStub(dialled),
                    prices=PriceServiceStub(dialled),
                    payments=PaymentServiceStub(dialled),
                    reports=ReportServiceStub(dialled),
                    clock=clock,
                    url=url,
                    service=service,
                    attestation=attestation,
                    verdicts=verdicts,
                    channel=dialled,
                )
            service.stop()
            await serving
