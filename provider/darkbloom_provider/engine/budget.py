"""KV memory as tokens: what a request reserves before it is submitted, and when there is no room.

A reservation is prompt plus greatest completion, held from admission to the end. The machine's KV
bytes are divided among the loaded builds by `darkbloom_edge.memory.kv_shares`.
"""

import dataclasses

from darkbloom_edge.memory import kv_shares

from darkbloom_provider.engine.errors import ErrorReason, capacity


@dataclasses.dataclass(slots=True)
class _Share:
    kv_bytes_per_token: int
    context: int
    bytes: int = 0
    reserved: dict[str, int] = dataclasses.field(default_factory=dict)


class KvBudget:
    """Reservations by build.

    Invariant: what a build has reserved never exceeds the share it had at admission.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._shares: dict[str, _Share] = {}

    def add_build(self, build_id: str, *, kv_bytes_per_token: int, context: int) -> None:
        """Divide the budget anew with one more build."""
        self._shares[build_id] = _Share(max(1, kv_bytes_per_token), context)
        self._divide()

    def remove_build(self, build_id: str) -> None:
        """Divide the budget anew without a build."""
        self._shares.pop(build_id, None)
        self._divide()

    def reserve(self, build_id: str, job_id: str, tokens: int) -> None:
        """Reserve the KV of a job.

        Raises:
            EngineError: `request_exceeds_node` when it could never fit, `token_budget_exhausted`
                when it does not fit now.
        """
        share = self._shares[build_id]
        if tokens > self.max_tokens(build_id):
            raise capacity(
                "request exceeds the memory of this machine", ErrorReason.REQUEST_EXCEEDS_NODE, 413
            )
        if self.used_tokens(build_id) + tokens > self.max_tokens(build_id):
            raise capacity("token budget is in use", ErrorReason.TOKEN_BUDGET_EXHAUSTED)
        share.reserved[job_id] = tokens

    def release(self, build_id: str, job_id: str) -> None:
        """Give a reservation back; unknown ids are ignored."""
        share = self._shares.get(build_id)
        if share is not None:
            share.reserved.pop(job_id, None)

    def max_tokens(self, build_id: str) -> int:
        """Tokens that fit the share of a build."""
        share = self._shares[build_id]
        return share.bytes // share.kv_bytes_per_token

    def used_tokens(self, build_id: str) -> int:
        """Tokens reserved now."""
        return sum(self._shares[build_id].reserved.values())

    def _divide(self) -> None:
        demands = {
            build_id: (share.kv_bytes_per_token, share.context)
            for build_id, share in self._shares.items()
        }
        for build_id, size in kv_shares(self._total_bytes, demands).items():
            self._shares[build_id].bytes = size
