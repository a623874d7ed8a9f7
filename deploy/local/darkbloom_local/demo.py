"""`make demo`: the whole promise once, from nothing, checked; the last line is one JSON object."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from darkbloom.billing.v1.account_service_pb2 import ListEarningsRequest
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom.common.v1.page_pb2 import PageRequest

from darkbloom_local.answer import Answer, MeshClient
from darkbloom_local.errors import LocalError
from darkbloom_local.mesh import Engine, Mesh, Progress
from darkbloom_local.models import SCRIPTED, SMOLLM2
from darkbloom_local.seeds import PROVIDER

_CALL_S = 10.0
_MAX_TOKENS = 48


async def demo(question: str, *, engine: Engine, cache: Path, progress: Progress) -> int:
    """Start a mesh in a fresh directory, ask, verify receipt and ledger, stop, report.

    Returns:
        0 when the receipt holds, the ledger is clean and the provider earned the charge.
    """
    with tempfile.TemporaryDirectory(prefix="darkbloom-demo-") as folder:
        mesh = Mesh(Path(folder), engine=engine, cache=cache, progress=progress)
        async with mesh:
            model = SMOLLM2 if engine == "mlx" else SCRIPTED
            progress(f"asking {model}: {question}")
            result = await _ask_and_check(mesh, question, model, progress)
        progress("stopped")
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    return 0 if _holds(result) else 1


async def _ask_and_check(
    mesh: Mesh, question: str, model: str, progress: Progress
) -> dict[str, Any]:
    client = MeshClient(mesh.url, mesh.api_key)
    try:
        answer = await asyncio.to_thread(
            client.ask, question, model=model, max_tokens=_MAX_TOKENS, on_text=_show
        )
        _show("\n")
        report = await asyncio.to_thread(client.verify, answer)
        for claim in report.claims:
            mark = {True: "holds", False: "FAILS", None: "not checked"}[claim.holds]
            progress(f"receipt: {claim.name} {mark}: {claim.detail} ({claim.backed_by})")
        usage = await asyncio.to_thread(client.usage, answer.job_id)
    finally:
        client.close()

    audit = await mesh.audit()
    return {
        "answer": answer.text,
        "model": answer.model,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "charge_micro_usd": usage["cost_micro_usd"],
        "provider_credit_micro_usd": await _credit(mesh, answer),
        "trust_level": answer.trust_level,
        "receipt_verified": report.ok,
        "ledger_violations": audit["ledger_violations"],
        "ttft_ms": round(answer.ttft_ms, 1),
    }


async def _credit(mesh: Mesh, answer: Answer) -> int:
    """Return what the provider's account earned with this answer."""
    stub = AccountServiceStub(mesh.channel("billing.grpc"))
    page = await stub.ListEarnings(
        ListEarningsRequest(account_id=PROVIDER, page=PageRequest(page_size=100)), timeout=_CALL_S
    )
    request_id = json.loads(answer.terminal())["request_id"]
    for earning in page.earnings:
        if earning.request_id == request_id:
            return int(earning.amount_micros)
    raise LocalError("the provider's account did not earn with this answer")


def _holds(result: dict[str, Any]) -> bool:
    return bool(
        result["receipt_verified"]
        and not result["ledger_violations"]
        and result["completion_tokens"] > 0
        and result["provider_credit_micro_usd"] == result["charge_micro_usd"]
    )


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
