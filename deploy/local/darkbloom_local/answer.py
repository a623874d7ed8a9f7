"""One question to a running mesh through the stock OpenAI SDK, and what can be checked of it."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import openai
from darkbloom_edge.receipt import parse_receipt
from darkbloom_edge.report import Report
from darkbloom_edge.verify import verify_receipt

from darkbloom_local.errors import LocalError

_TIMEOUT_S = 300.0
_SETTLE_S = 10.0
_POLL_S = 0.05


@dataclass(kw_only=True)
class Answer:
    """What came back, with the evidence."""

    text: str = ""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft_ms: float = 0.0
    """Milliseconds from sending the request to the first content."""
    headers: Mapping[str, str] = field(default_factory=dict)
    request_body: bytes = b""
    """The HTTP body, byte for byte."""
    receipt: bytes = b""
    """The receipt's JSON; empty when none came."""

    @property
    def job_id(self) -> str:
        """Attempt that answered; names the usage row."""
        return self.headers.get("x-inference-job-id", "")

    def terminal(self) -> bytes:
        """Return the document that the provider signed: counts, digests, ids."""
        return parse_receipt(self.receipt).terminal

    @property
    def trust_level(self) -> str:
        """What the gateway says of the machine that answered."""
        return self.headers.get("x-provider-trust-level", "none")


class MeshClient:
    """A consumer of one mesh."""

    def __init__(self, url: str, api_key: str) -> None:
        self._sent = b""
        self._openai = openai.OpenAI(
            base_url=f"{url}/v1",
            api_key=api_key,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                timeout=_TIMEOUT_S, event_hooks={"request": [self._keep]}
            ),
        )

    def close(self) -> None:
        """Close the connections."""
        self._openai.close()

    def models(self) -> list[str]:
        """Return the names that may be asked for; aliases first as the gateway lists them."""
        return [model.id for model in self._openai.models.list()]

    def ask(
        self,
        question: str,
        *,
        model: str,
        max_tokens: int,
        on_text: Callable[[str], None] = lambda _text: None,
    ) -> Answer:
        """Stream an answer; `on_text` gets each piece as it comes.

        Raises:
            LocalError: The mesh answered with an error.
        """
        answer = Answer()
        started = time.monotonic()
        try:
            raw = self._openai.chat.completions.with_raw_response.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                max_tokens=max_tokens,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
            answer.headers = {name.lower(): value for name, value in raw.headers.items()}
            for chunk in raw.parse():
                if not answer.text and chunk.choices and chunk.choices[0].delta.content:
                    answer.ttft_ms = (time.monotonic() - started) * 1000
                self._take(answer, chunk, on_text)
        except openai.APIError as error:
            raise LocalError(f"the mesh refused: {error.message}") from None
        answer.request_body = self._sent
        return answer

    def verify(self, answer: Answer) -> Report:
        """Check the receipt against the keys that the mesh publishes, the request and the text."""
        keys = self._get("/receipts/keys")
        return verify_receipt(
            answer.receipt,
            verdict_keys=_keys(keys["verdict_keys"]),
            gateway_keys=_keys(keys["receipt_keys"]),
            request_body=answer.request_body,
            answer=answer.text.encode(),
        )

    def usage(self, job_id: str) -> Mapping[str, Any]:
        """Return the usage row of a job; it appears right after the stream's end.

        Raises:
            LocalError: It was not settled in time.
        """
        end = time.monotonic() + _SETTLE_S
        while True:
            for row in self._get("/payments/usage")["usage"]:
                if row["job_id"] == job_id:
                    return dict(row)
            if time.monotonic() > end:
                raise LocalError(f"{job_id} was not settled within {_SETTLE_S:.0f} s")
            time.sleep(_POLL_S)

    def gateway_backing(self) -> str:
        """Say in a few words what backs the gateway's own word that it keeps nothing."""
        try:
            page = self._get("/gateway/evidence")
        except LocalError:
            return "not known, the gateway did not say"
        quote = page.get("quote")
        if isinstance(quote, dict):
            return f"shows a {quote.get('kind')} quote, not checked here"
        return f"no hardware evidence ({page.get('why_none')})"

    def _get(self, path: str) -> dict[str, Any]:
        try:
            found = self._openai.get(path, cast_to=object)
        except openai.APIError as error:
            raise LocalError(f"the mesh refused {path}: {error.message}") from None
        if not isinstance(found, dict):
            raise LocalError(f"the mesh answered {path} with something else than an object")
        return found

    def _keep(self, request: Any) -> None:
        # The receipt's digests cover the body byte for byte, so keep what really went out.
        if request.method == "POST":
            self._sent = request.read()

    def _take(self, answer: Answer, chunk: Any, on_text: Callable[[str], None]) -> None:
        answer.model = chunk.model or answer.model
        if chunk.choices and (text := chunk.choices[0].delta.content):
            answer.text += text
            on_text(text)
        if chunk.usage:
            answer.prompt_tokens = chunk.usage.prompt_tokens
            answer.completion_tokens = chunk.usage.completion_tokens
        if receipt := (chunk.model_extra or {}).get("receipt"):
            answer.receipt = json.dumps(receipt).encode()


def _keys(rows: Any) -> dict[str, bytes]:
    return {row["key_id"]: base64.b64decode(row["public_key"]) for row in rows}
