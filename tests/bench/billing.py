"""Holds and settlements through billing's own process and a PostgreSQL with durable commits.

Rows travel as gateways and routers send them: what waits while one call is in flight goes in the
next, up to 64. The load runs in this process; billing and PostgreSQL are the others.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from darkbloom.billing.v1 import account_service_pb2 as accounts_pb
from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1 import ledger_service_pb2 as ledger_pb
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom.billing.v1.ledger_service_pb2_grpc import LedgerServiceStub
from darkbloom_gateway.batching import Batcher
from darkbloom_local import stores
from darkbloom_local.errors import NotReadyError
from darkbloom_local.process import Child, Command
from darkbloom_mesh.channel import channel
from darkbloom_mesh.config import Secret
from darkbloom_mesh.migrate import migrate

from tests.bench import placement
from tests.bench.signing import Machine

_PAYERS = 64
_MONEY = 10**14
_CALL_S = 10.0
_READY_S = 30.0
_STOP_S = 10.0
_SETTLED = ledger_pb2.SETTLEMENT_STATUS_SETTLED

_Pids = tuple[int, int]
"""Of PostgreSQL and of billing."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How holds are asked for."""

    name: str
    at_once: int
    payers: int


LOADS = (
    Load(name="c1", at_once=1, payers=_PAYERS),
    Load(name="c16", at_once=16, payers=_PAYERS),
    Load(name="c64", at_once=64, payers=_PAYERS),
    Load(name="hot_c64", at_once=64, payers=1),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """What one kind of command showed."""

    per_s: float
    p50_ms: float
    p99_ms: float
    pg_cpu_ms: float
    """CPU time of all of PostgreSQL's processes for one row."""
    billing_cpu_ms: float
    """CPU time of billing for one row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one load showed."""

    hold: Phase
    settle: Phase

    @property
    def pg_cpu_ms_per_pair(self) -> float:
        """CPU time of PostgreSQL for one hold and its settlement."""
        return self.hold.pg_cpu_ms + self.settle.pg_cpu_ms


class _Line(Generic[T, R]):
    """One line to billing with one call in flight."""

    def __init__(self, call: Callable[[Sequence[T]], Any]) -> None:
        self._batcher: Batcher[T, R] = Batcher(call)
        self._run = asyncio.ensure_future(self._batcher.run())

    async def ask(self, item: T) -> R:
        return await self._batcher.submit(item)

    async def close(self) -> None:
        self._run.cancel()
        with suppress(asyncio.CancelledError):
            await self._run


async def measure(
    home: Path, seconds: float, progress: Callable[[str], None]
) -> dict[str, Figures]:
    """Run every load against a fresh billing; each of its phases takes `seconds`."""
    machine = Machine()
    async with (
        _billing(home, machine) as (target, pids),
        channel(target, mesh_token="", room="bench") as dialled,
    ):
        ledger, accounts = LedgerServiceStub(dialled), AccountServiceStub(dialled)
        await _people(accounts, machine)
        found: dict[str, Figures] = {}
        for load in LOADS:
            progress(f"billing: {load.name}")
            found[load.name] = await _load(ledger, machine, pids, load, seconds)
        return found


async def _load(
    ledger: LedgerServiceStub, machine: Machine, pids: _Pids, load: Load, seconds: float
) -> Figures:
    async def hold(orders: Sequence[ledger_pb2.HoldOrder]) -> list[ledger_pb2.HoldResult]:
        answer = await ledger.Hold(ledger_pb.HoldRequest(orders=orders), timeout=_CALL_S)
        return list(answer.results)

    async def settle(items: Sequence[ledger_pb2.Settlement]) -> list[ledger_pb2.SettlementResult]:
        request = ledger_pb.SettleHoldsRequest(settlements=items)
        return list((await ledger.SettleHolds(request, timeout=_CALL_S)).results)

    names: list[str] = []

    def order() -> ledger_pb2.HoldOrder:
        made = machine.order(f"acct_{len(names) % load.payers}")
        names.append(made.request_id)
        return made

    # What is planned and prepared at the first call is not what is measured.
    for item in await hold([order() for _ in range(8)]):
        assert item.HasField("hold")
    held = await _phase(hold, order, load.at_once, seconds, pids)

    # Signed beforehand: providers do that.
    waiting = [machine.settlement(name) for name in names]
    for ended in await settle([waiting.pop() for _ in range(8)]):
        assert ended.status == _SETTLED
    settled = await _phase(settle, waiting.pop, load.at_once, seconds, pids, len(waiting))
    return Figures(hold=held, settle=settled)


async def _phase(
    call: Callable[[Sequence[T]], Any],
    make: Callable[[], T],
    at_once: int,
    seconds: float,
    pids: _Pids,
    most: int = sys.maxsize,
) -> Phase:
    """Keep `at_once` rows in the air until the time is over or `most` rows are made."""
    line: _Line[T, Any] = _Line(call)
    times: list[float] = []
    made = 0
    started = time.perf_counter()

    async def worker() -> None:
        nonlocal made
        while made < most and time.perf_counter() - started < seconds:
            item = make()
            made += 1
            asked = time.perf_counter()
            answer = await line.ask(item)
            times.append(time.perf_counter() - asked)
            assert getattr(answer, "status", _SETTLED) == _SETTLED
            assert not getattr(answer, "refusal", 0)

    before = [placement.cpu_seconds(pid) for pid in pids]
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    finally:
        await line.close()
    span = time.perf_counter() - started
    postgres, room = (
        (placement.cpu_seconds(pid) - earlier) * 1000 / len(times)
        for pid, earlier in zip(pids, before, strict=True)
    )
    times.sort()
    return Phase(
        per_s=len(times) / span,
        p50_ms=times[len(times) // 2] * 1000,
        p99_ms=times[len(times) * 99 // 100] * 1000,
        pg_cpu_ms=postgres,
        billing_cpu_ms=room,
    )


@asynccontextmanager
async def _billing(home: Path, machine: Machine) -> AsyncIterator[tuple[str, _Pids]]:
    """Run PostgreSQL and billing; yield billing's address and both process ids."""
    store = stores.Postgres(home / "postgres")
    store.prepare()
    server = store.launch()
    try:
        store.wait_ready(server)
        await asyncio.to_thread(
            migrate, Secret(store.url), package="darkbloom_billing", schema="billing"
        )
        log = home / "billing.log"
        room = Child.start(
            Command(
                name="billing",
                argv=[sys.executable, "-m", "darkbloom_billing", "serve"],
                env={
                    "DARKBLOOM_ENV": "development",
                    "DATABASE_URL": store.url,
                    "DARKBLOOM_BILLING_LISTEN": "127.0.0.1:0",
                    "DARKBLOOM_BILLING_VERDICT_KEYS": machine.verdict_key,
                },
                log=log,
            )
        )
        try:
            yield await _address(room, log), (server.pid, room.pid)
        finally:
            room.stop(_STOP_S)
    finally:
        server.stop(_STOP_S)


async def _address(room: Child, log: Path) -> str:
    """Return where billing listens, as soon as its log says so."""
    found: list[str] = []

    def said() -> bool:
        for line in log.read_text().splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                if event.get("msg") == "serving":
                    found.append(str(event["listeners"]["grpc"]))
        return bool(found)

    if not await asyncio.to_thread(room.wait_until, said, _READY_S):
        raise NotReadyError(f"billing is not ready, see {log}")
    return found[0]


async def _people(accounts: AccountServiceStub, machine: Machine) -> None:
    for name in (*(f"acct_{n}" for n in range(_PAYERS)), "acct_provider"):
        await accounts.CreateAccount(
            accounts_pb.CreateAccountRequest(account_id=name, display_name=name),
            timeout=_CALL_S,
            wait_for_ready=True,
        )
        await accounts.Grant(
            accounts_pb.GrantRequest(
                request_id=f"grant_{name}", account_id=name, amount_micros=_MONEY
            ),
            timeout=_CALL_S,
        )
    await accounts.LinkProvider(
        accounts_pb.LinkProviderRequest(
            identity_key=machine.identity, account_id="acct_provider", name="bench"
        ),
        timeout=_CALL_S,
    )


ROWS = (
    ("hold", "p50_ms", "hold p50, ms"),
    ("hold", "p99_ms", "hold p99, ms"),
    ("hold", "per_s", "holds per second"),
    ("hold", "billing_cpu_ms", "… CPU of billing for one, ms"),
    ("settle", "p50_ms", "settlement p50, ms"),
    ("settle", "p99_ms", "settlement p99, ms"),
    ("settle", "per_s", "settlements per second"),
    ("settle", "billing_cpu_ms", "… CPU of billing for one, ms"),
)


def table(found: dict[str, Figures]) -> str:
    """Return the figures as text."""
    lines = ["billing: holds and settlements" + " " * 28 + "".join(f"{n:>12}" for n in found)]
    for phase, figure, label in ROWS:
        values = (getattr(getattr(one, phase), figure) for one in found.values())
        lines.append(f"  {label:56}" + "".join(f"{_short(value):>12}" for value in values))
    pairs = (_short(one.pg_cpu_ms_per_pair) for one in found.values())
    lines.append(f"  {'PostgreSQL CPU of a pair, ms':56}" + "".join(f"{v:>12}" for v in pairs))
    return "\n".join(lines) + "\n"


def summary(found: dict[str, Figures]) -> dict[str, Any]:
    """Return the figures as JSON values."""
    return {
        name: {
            phase: {
                figure: round(value, 3) for figure, value in asdict(getattr(one, phase)).items()
            }
            for phase in ("hold", "settle")
        }
        | {"pg_cpu_ms_per_pair": round(one.pg_cpu_ms_per_pair, 3)}
        for name, one in found.items()
    }


def targets(found: dict[str, Figures]) -> dict[str, bool]:
    """Say which bars are met."""
    slowest = max(one.settle.p50_ms / one.hold.p50_ms for one in found.values())
    pairs = [one.pg_cpu_ms_per_pair for name, one in found.items() if name != "c1"]
    return {
        "hold_p50_c1 <= 1.5 ms": found["c1"].hold.p50_ms <= 1.5,
        "holds_per_s_c64 >= 3000": found["c64"].hold.per_s >= 3000,
        "holds_per_s_hot >= 1500": found["hot_c64"].hold.per_s >= 1500,
        "settle_p50 <= 2x hold_p50": slowest <= 2,
        "pg_cpu_pair <= 0.6 ms": max(pairs) <= 0.6,
    }


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
