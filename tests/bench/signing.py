"""One provider's machine and attestation's verdict on it: what settlements are made of."""

import secrets
from datetime import timedelta

from darkbloom.billing.v1 import ledger_pb2
from darkbloom.common.v1 import price_pb2
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.ids import id_text
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64
from darkbloom_edge.terminal import Terminal, sign_terminal
from darkbloom_edge.transcript import Digests
from darkbloom_edge.verdict import Verdict, sign_verdict
from darkbloom_mesh.clock import SystemClock

_BUILD = "bench-build"
_HEX = "0" * 64
_PROMPT, _OUTPUT = 400, 500
_K = to_base64(b"k" * 32)


class Machine:
    """Signs terminals of requests that it never served."""

    def __init__(self) -> None:
        self._identity = P256Signer.generate()
        attestation = Ed25519Signer.generate()
        self._verdict_id = id_text("ver", secrets.token_bytes(16))
        # Long enough in force for the slowest run: issued now, it lives for 15 minutes.
        issued = SystemClock().now() - timedelta(seconds=5)
        verdict = Verdict(
            verdict_id=self._verdict_id,
            provider_id=id_text("prov", secrets.token_bytes(16)),
            identity_key=self._identity.public_text,
            encryption_key=_K,
            trust_level="none",
            admission="development",
            evidence=[],
            code_release="sha256:bench",
            issued_at=rfc3339(issued),
            expires_at=rfc3339(issued + timedelta(minutes=15)),
        )
        document, signature = sign_verdict(verdict, attestation)
        self._verdict = price_pb2.SignedDocument(
            document=document, signature=signature, key_id=attestation.key_id
        )
        self.identity = self._identity.public
        self.verdict_key = to_base64(attestation.public)

    def order(self, account_id: str) -> ledger_pb2.HoldOrder:
        """Return a new request's order."""
        return ledger_pb2.HoldOrder(
            request_id=id_text("req", secrets.token_bytes(16)),
            account_id=account_id,
            build=_BUILD,
            prompt_bound=_PROMPT,
            output_bound=_OUTPUT,
            requested_model="bench",
        )

    def settlement(self, request_id: str) -> ledger_pb2.Settlement:
        """Return the settlement of a request, its terminal signed."""
        attempt = id_text("att", secrets.token_bytes(16))
        terminal = Terminal(
            request_id=request_id,
            attempt_id=attempt,
            build=_BUILD,
            weight_hash="w",
            prompt_tokens=_PROMPT,
            completion_tokens=_OUTPUT,
            cached_tokens=0,
            reasoning_tokens=0,
            chunks=16,
            finish_reason="stop",
            encryption_key=_K,
            verdict_id=self._verdict_id,
            sealed_to=1,
            digests=Digests(request=_HEX, content=_HEX, reasoning=_HEX, tool_calls=()),
            outcome="completed",
        )
        document, signature = sign_terminal(terminal, self._identity)
        return ledger_pb2.Settlement(
            request_id=request_id,
            attempt_id=attempt,
            verdict=self._verdict,
            terminal=price_pb2.SignedDocument(document=document, signature=signature),
            opened=ledger_pb2.OpenedCounts(
                frames=16, prompt_tokens=_PROMPT, completion_tokens=_OUTPUT
            ),
        )
