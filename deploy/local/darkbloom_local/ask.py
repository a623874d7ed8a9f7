"""`make ask`: a streamed answer from the running mesh, then what can be known about it."""

import sys
from collections.abc import Callable
from pathlib import Path

from darkbloom_local.answer import Answer, MeshClient
from darkbloom_local.errors import LocalError
from darkbloom_local.state import StateDir

_MARKS = {True: "✓", False: "✗", None: "-"}


def ask(state: Path, question: str, *, model: str, max_tokens: int) -> int:
    """Ask, print tokens as they come, then model, tokens, cost, trust and the receipt's claims.

    Returns:
        0 when the receipt holds, 1 when it does not.

    Raises:
        LocalError: No mesh runs there, or it refused.
    """
    facts = StateDir(state).running()
    client = MeshClient(str(facts["url"]), Path(facts["api_key_file"]).read_text().strip())
    try:
        name = model or _first(client.models())
        answer = client.ask(question, model=name, max_tokens=max_tokens, on_text=_show)
        _show("\n\n")
        return _explain(client, answer, _show)
    finally:
        client.close()


def _explain(client: MeshClient, answer: Answer, show: Callable[[str], None]) -> int:
    cost = client.usage(answer.job_id)["cost_micro_usd"] / 1_000_000
    show(f"model    {answer.model}\n")
    show(f"tokens   {answer.prompt_tokens} in, {answer.completion_tokens} out\n")
    show(f"cost     ${cost:.6f}\n")
    show(f"speed    first content after {answer.ttft_ms:.0f} ms\n")
    show(f"trust    {answer.trust_level}\n")
    show(f"gateway  {client.gateway_backing()}\n")

    report = client.verify(answer)
    show(f"receipt  {'holds' if report.ok else 'DOES NOT HOLD'}\n")
    for claim in report.claims:
        show(f"  {_MARKS[claim.holds]} {claim.name}: {claim.detail} ({claim.backed_by})\n")
    return 0 if report.ok else 1


def _first(models: list[str]) -> str:
    if not models:
        raise LocalError("the mesh offers no model")
    return models[0]


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
