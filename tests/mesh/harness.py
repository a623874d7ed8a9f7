"""A consumer, an accountant and a patient observer of one running mesh."""

import asyncio
import base64
import hashlib
import json
import secrets
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from darkbloom.billing.v1 import account_service_pb2 as rpc
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom.router.v1 import fleet_pb2, fleet_service_pb2
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom_edge.report import Report
from darkbloom_edge.verify import verify_receipt
from darkbloom_local.environment import inherited
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_local.seeds import CONSUMER, PROVIDER
from darkbloom_mesh.clock import SystemClock

PATIENCE_S = 30.0
CALL_S = 10.0
_POLL_S = 0.02

_UNLIMITED = {
    # One account does everything here, on some machines faster than a person's rate allows.
    f"DARKBLOOM_GATEWAY_{name}": "1000000000"
    for name in (
        "REQUEST_RATE",
        "REQUEST_BURST",
        "INPUT_TOKENS",
        "INPUT_BURST",
        "OUTPUT_TOKENS",
        "OUTPUT_BURST",
    )
}

QUICK = {
    "gateway": _UNLIMITED,
    "router": {
        "DARKBLOOM_ROUTER_BREAK_SETTLE_DELAY_S": "0.5",
        # A story kills one machine more than once; no consumer waits five minutes for its end.
        "DARKBLOOM_ROUTER_ERROR_COOLDOWN_S": "0",
    },
    "billing": {
        "DARKBLOOM_BILLING_SWEEP_PERIOD_S": "0.2",
        "DARKBLOOM_BILLING_ROLLUP_PERIOD_S": "0.2",
    },
}
"""Environments under which the mesh does within a second what it otherwise does in minutes."""

SHORT_LEASES = {
    "gateway": _UNLIMITED,
    "billing": {
        "DARKBLOOM_BILLING_HOLD_LEASE_S": "7",
        "DARKBLOOM_BILLING_SWEEP_PERIOD_S": "0.2",
    },
    "router": {
        **QUICK["router"],
        "DARKBLOOM_ROUTER_HOLD_LEASE_S": "7",
        "DARKBLOOM_ROUTER_RENEW_INTERVAL_S": "1",
    },
}
"""The same, with holds that lapse within seconds when nobody renews them."""


async def until(
    condition: Callable[[], Awaitable[Any]], what: str, patience_s: float = PATIENCE_S
) -> Any:
    """Return the first true value of `condition`; fail, saying `what` did not come, at the end."""
    clock = SystemClock()
    end = clock.monotonic() + patience_s
    while True:
        found = await condition()
        if found:
            return found
        if clock.monotonic() > end:
            raise AssertionError(f"not within {patience_s:.0f} s: {what}")
        await clock.sleep(_POLL_S)


def script(**fields: Any) -> list[dict[str, Any]]:
    """Return the messages that make the scripted engine do this."""
    return [{"role": "user", "content": f"/script {json.dumps(fields)}"}]


@dataclass
class Stream:
    """A streamed answer, as far as it came."""

    status: int
    headers: httpx.Headers
    events: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0
    """How many `[DONE]` came."""
    cut: bool = False
    """The connection broke."""

    @property
    def text(self) -> str:
        """The content so far."""
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events
            for choice in event.get("choices", ())
        )

    @property
    def words(self) -> int:
        """Tokens of the scripted engine so far."""
        return len(self.text.split())

    @property
    def error(self) -> dict[str, Any] | None:
        """The in-band error, if there is one; more than one is a failure."""
        errors = [event["error"] for event in self.events if "error" in event]
        assert len(errors) <= 1, errors
        return errors[0] if errors else None

    @property
    def receipt(self) -> dict[str, Any]:
        """The trailing receipt."""
        (found,) = [event["receipt"] for event in self.events if "receipt" in event]
        return dict(found)

    @property
    def job_id(self) -> str:
        """The attempt that answers."""
        return str(self.headers["x-inference-job-id"])

    @property
    def provider_id(self) -> str:
        """Who answers."""
        return str(self.headers["x-provider-id"])


class Reading:
    """A stream that is being read, event by event."""

    def __init__(self, response: httpx.Response) -> None:
        self.stream = Stream(response.status_code, response.headers)
        self._lines = response.aiter_lines()

    async def words(self, count: int) -> None:
        """Read until so many tokens have come."""
        while self.stream.words < count:
            assert await self._next(), f"ended after {self.stream.words} tokens"

    async def begun(self) -> bool:
        """Read to the first token; False where the stream ended without one."""
        while not self.stream.words:
            if not await self._next():
                return False
        return True

    async def rest(self) -> Stream:
        """Read to the end, whatever it is."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._next():
                pass
        return self.stream

    async def _next(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S):
                line = await anext(self._lines, None)
        except httpx.TransportError:
            self.stream.cut = True
            return False
        if line is None:
            return False
        if line == "data: [DONE]":
            self.stream.done += 1
        elif line.startswith("data: "):
            self.stream.events.append(json.loads(line.removeprefix("data: ")))
        return True


class Consumer:
    """Somebody with an API key, who looks at every byte."""

    def __init__(self, mesh: Mesh, api_key: str | None = None) -> None:
        self.mesh = mesh
        self.api_key = mesh.api_key if api_key is None else api_key

    def client(self) -> httpx.AsyncClient:
        """Return a client of its own connections."""
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return httpx.AsyncClient(base_url=self.mesh.url, headers=headers, timeout=PATIENCE_S)

    async def get(self, path: str) -> httpx.Response:
        """Get a path."""
        async with self.client() as http:
            return await http.get(path)

    async def post(
        self,
        body: bytes | Mapping[str, Any],
        *,
        path: str = "/v1/chat/completions",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Post a body, JSON or exact bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.client() as http:
            return await http.post(path, content=content, headers=headers)

    async def ask(self, **fields: Any) -> httpx.Response:
        """Ask the scripted engine, not streamed; fields as of `script`."""
        return await self.post({"model": SCRIPTED, "messages": script(**fields)})

    @asynccontextmanager
    async def streaming(
        self, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> AsyncIterator[Reading]:
        """Open a stream; leaving the block hangs up."""
        body = {"model": SCRIPTED, "messages": script(**fields), "stream": True}
        async with (
            self.client() as http,
            http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response,
        ):
            if response.status_code != 200:
                await response.aread()
                raise AssertionError(f"{response.status_code}: {response.text}")
            yield Reading(response)

    async def balance(self) -> int:
        """Return what the account can spend, in micro-USD."""
        return int((await self.get("/v1/payments/balance")).json()["balance_micro_usd"])

    async def usage(self, job_id: str) -> dict[str, Any]:
        """Return the usage row of a job, once it is there."""

        async def row() -> dict[str, Any] | None:
            answer = await self.get("/v1/payments/usage?limit=1000")
            if answer.status_code != 200:
                return None
            return next((one for one in answer.json()["usage"] if one["job_id"] == job_id), None)

        found = await until(row, f"usage of {job_id}")
        return dict(found)

    async def keys(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Return the published keys: of verdicts, of receipts."""
        published = (await self.get("/v1/receipts/keys")).json()

        def by_id(rows: list[dict[str, str]]) -> dict[str, bytes]:
            return {row["key_id"]: base64.b64decode(row["public_key"]) for row in rows}

        return by_id(published["verdict_keys"]), by_id(published["receipt_keys"])

    async def verify(
        self, receipt: Mapping[str, Any], *, body: bytes | None = None, answer: str | None = None
    ) -> Report:
        """Check a receipt against the published keys."""
        verdict_keys, receipt_keys = await self.keys()
        return verify_receipt(
            json.dumps(receipt).encode(),
            verdict_keys=verdict_keys,
            gateway_keys=receipt_keys,
            request_body=body,
            answer=None if answer is None else answer.encode(),
        )


class Books:
    """Billing, asked directly."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    @property
    def accounts(self) -> AccountServiceStub:
        """The accounts' service."""
        return AccountServiceStub(self._mesh.channel("billing.grpc"))

    async def earning(self, request_id: str) -> int:
        """Return what the provider earned with a request."""
        return (await self._earnings()).get(request_id, 0)

    async def earned(self) -> int:
        """Return what the provider has earned in all, mature or not."""
        return sum((await self._earnings()).values())

    async def earned_by(self, account_id: str) -> int:
        """Return what another account has earned in all, mature or not."""
        return sum((await self._earnings(account_id)).values())

    async def _earnings(self, account_id: str = PROVIDER) -> dict[str, int]:
        found: dict[str, int] = {}
        token = ""
        while True:
            page = await self.accounts.ListEarnings(
                rpc.ListEarningsRequest(
                    account_id=account_id, page=PageRequest(page_size=1000, page_token=token)
                ),
                timeout=CALL_S,
                wait_for_ready=True,
            )
            found |= {row.request_id: row.amount_micros for row in page.earnings}
            token = page.next_page_token
            if not token:
                return found

    async def held(self) -> int:
        """Return what the consumer has in open holds."""
        found = await self.accounts.GetBalance(
            rpc.GetBalanceRequest(account_id=CONSUMER), timeout=CALL_S, wait_for_ready=True
        )
        return int(found.held_micros)

    async def quiet(self) -> None:
        """Return once no hold is open."""

        async def none_held() -> bool:
            return await self.held() == 0

        await until(none_held, "every hold has ended")

    async def clean(self) -> None:
        """Return once no hold is open; the audit must find nothing."""
        await self.quiet()
        report = await self._mesh.audit()
        assert report["violations"] == []
        assert report["counts"]["open_holds"] == 0

    async def new_account(
        self, account_id: str | None = None, *, grant_micros: int = 0
    ) -> tuple[str, str]:
        """Open an account; return its API key and the key's id."""
        account_id = account_id or f"acct_{secrets.token_hex(8)}"
        secret = f"sk-db-{secrets.token_hex(32)}"
        await self.accounts.CreateAccount(
            rpc.CreateAccountRequest(account_id=account_id, display_name="test"),
            timeout=CALL_S,
            wait_for_ready=True,
        )
        made = await self.accounts.CreateKey(
            rpc.CreateKeyRequest(
                account_id=account_id,
                key_hash=hashlib.sha256(secret.encode()).digest(),
                label="test",
                name="test",
            ),
            timeout=CALL_S,
            wait_for_ready=True,
        )
        if grant_micros:
            await self.accounts.Grant(
                rpc.GrantRequest(
                    request_id=f"grant_{secrets.token_hex(8)}",
                    account_id=account_id,
                    amount_micros=grant_micros,
                    note="test",
                ),
                timeout=CALL_S,
                wait_for_ready=True,
            )
        return secret, made.key.key_id


class Fleet:
    """The router's own view of who is connected."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    @property
    def _stub(self) -> FleetServiceStub:
        return FleetServiceStub(self._mesh.channel("router.internal"))

    async def providers(self) -> dict[str, fleet_pb2.Provider]:
        """Return the connected providers by id; none while the router is away."""
        answer = await self._stub.ListProviders(
            fleet_service_pb2.ListProvidersRequest(), timeout=CALL_S, wait_for_ready=True
        )
        return {row.provider_id: row for row in answer.providers}

    async def explain(self, provider_id: str) -> fleet_pb2.Explanation:
        """Return why the scripted build is or is not routed to a provider."""
        answer = await self._stub.ExplainProvider(
            fleet_service_pb2.ExplainProviderRequest(provider=provider_id, build=SCRIPTED),
            timeout=CALL_S,
            wait_for_ready=True,
        )
        return answer.explanations[0]

    async def routable(self) -> int:
        """Return how many providers would be offered a request now."""
        count = 0
        for provider_id, provider in (await self.providers()).items():
            if provider.status == "online":
                count += (await self.explain(provider_id)).eligible
        return count

    async def wait_routable(self, count: int = 1) -> None:
        """Return once so many providers are routable and the gateway has its lane."""

        async def there() -> bool:
            return await self.routable() == count

        await until(there, f"{count} routable providers")
        await gateway_ready(self._mesh)


async def gateway_ready(mesh: Mesh) -> None:
    """Return once the gateway says that requests may come."""

    async def ready() -> bool:
        async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
            try:
                return (await http.get(f"{mesh.url}/readyz")).status_code == 200
            except httpx.TransportError:
                return False

    await until(ready, "the gateway is ready")


def provider_state(mesh: Mesh, name: str = "provider") -> dict[str, Any]:
    """Return the snapshot that an agent keeps for its owner."""
    try:
        found = json.loads(mesh.state.path(name, "daemon-state.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return dict(found)


def running_on(mesh: Mesh, name: str = "provider") -> int:
    """Return how many requests a provider's engine runs, by its own word; a dead one's is void."""
    if name not in mesh.pids:
        return 0
    return sum(slot["running"] for slot in provider_state(mesh, name).get("slots", ()))


async def metrics_of(mesh: Mesh, name: str, *, exemplars: bool = False) -> str:
    """Return the metrics page of a process; in OpenMetrics it shows traces beside times."""
    accept = "application/openmetrics-text; version=1.0.0" if exemplars else "text/plain"
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        address = mesh.ready(name)["listeners"]["metrics"]
        return (await http.get(f"http://{address}/metrics", headers={"accept": accept})).text


async def metric(mesh: Mesh, name: str, sample: str) -> float:
    """Return one sample by its exact name and labels; 0 where it was never counted."""
    for line in (await metrics_of(mesh, name)).splitlines():
        if line.startswith(f"{sample} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def request_id_of(receipt: Mapping[str, Any]) -> str:
    """Return the request that a receipt speaks of."""
    return str(json.loads(base64.b64decode(receipt["terminal"]))["request_id"])


def darkbloom(
    mesh: Mesh, *arguments: str, name: str = "provider"
) -> "Callable[[], subprocess.CompletedProcess[str]]":
    """Return a call of a provider's command line, for a thread."""
    setup = mesh._provider(name)
    environment = inherited() | setup.environment()
    return lambda: subprocess.run(
        setup.argv(*arguments),
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
        text=True,
    )
