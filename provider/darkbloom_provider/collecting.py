"""Collects everything about one answer from a gateway, to be checked without it later."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from darkbloom_edge.bundle import MAX_BUNDLE_BYTES
from darkbloom_edge.documents import convert_document, decode_document
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.log import build_subject
from darkbloom_edge.receipt import Receipt
from darkbloom_edge.strict_json import parse_json_object
from darkbloom_edge.terminal import Terminal
from darkbloom_edge.verdict import Verdict

from darkbloom_provider.errors import ProviderError

TIMEOUT_S = 20.0
POLL_S = 0.5
_OK, _NOT_FOUND = 200, 404
_ID = re.compile(r"(req|att)_[0-9a-f]{32}")


class CollectError(ProviderError):
    """The gateway refused, did not answer, or answered with something else."""


def is_receipt_id(text: str) -> bool:
    """Tell whether this names a receipt: the id of a request or of an attempt."""
    return _ID.fullmatch(text) is not None


def receipt_in(answer: bytes) -> bytes | None:
    """Return the receipt out of a saved answer, JSON or event stream; None where there is none."""
    documents = [answer]
    if b"data: " in answer[:4096]:
        lines = answer.splitlines()
        documents = [line.removeprefix(b"data: ") for line in lines if b'"receipt"' in line]
    for document in documents:
        try:
            found = parse_json_object(document, max_bytes=MAX_BUNDLE_BYTES)
        except MalformedError:
            continue
        if isinstance(found.get("receipt"), dict):
            return json.dumps(found["receipt"]).encode()

    return None


@dataclass(kw_only=True)
class Collector:
    """Reads one gateway, within bounds."""

    gateway: str
    """Its URL."""
    api_key: str = field(repr=False)
    """Of the account that asked: nobody else may read its receipts."""
    wait_s: float = 0.0
    """How long to wait until the receipt is in the log."""
    transport: httpx.BaseTransport | None = None
    """Instead of the network."""

    def collect(self, receipt: Mapping[str, Any] | str) -> bytes:
        """Return a bundle about an answer, as JSON.

        Args:
            receipt: as it came with the answer, or its id; then the copy that the mesh keeps is
                taken, which has no receipt key and so says nothing about content.

        Raises:
            CollectError: something that every bundle needs cannot be read.
        """
        with httpx.Client(
            base_url=self.gateway, timeout=TIMEOUT_S, transport=self.transport
        ) as http:
            try:
                return self._collect(http, receipt)
            except (KeyError, TypeError, AttributeError):
                raise CollectError("the gateway's answers are not of this version") from None

    def _collect(self, http: httpx.Client, receipt: Mapping[str, Any] | str) -> bytes:
        name = receipt if isinstance(receipt, str) else _read(receipt)[1].request_id
        kept = self._anchored(http, name)
        if isinstance(receipt, str):
            if kept is None:
                raise CollectError(f"the gateway has no receipt {name}")
            receipt = dict(kept["receipt"])
        read, terminal, verdict = _read(receipt)
        anchor = kept["anchor"] if kept is not None else None
        page = self._get(http, "/v1/providers/attestation", provider_id=verdict.provider_id)
        machines = [row for row in page["providers"] if row["provider_id"] == verdict.provider_id]
        blessed = self._get(http, "/v1/releases")["releases"]
        manifests = [
            row["manifest"]
            for row in blessed
            if row["code_release"] == verdict.code_release and "manifest" in row
        ]
        bundle = {
            "version": 1,
            "receipt": receipt,
            "keys": self._get(http, "/v1/receipts/keys"),
            "anchor": anchor,
            "log": self._log(http, anchor, read, terminal, verdict),
            "provider": machines[0] if machines else None,
            "release": manifests[0] if manifests else None,
        }
        present = {name: value for name, value in bundle.items() if value is not None}
        return json.dumps(present, indent=1).encode() + b"\n"

    def _anchored(self, http: httpx.Client, name: str) -> dict[str, Any] | None:
        """Read what the mesh keeps of a receipt, if possible once it is in the log."""
        give_up = time.monotonic() + self.wait_s
        while True:
            found = self._find(http, f"/v1/receipts/{name}")
            if (found is not None and found["anchor"]) or time.monotonic() >= give_up:
                return found
            time.sleep(POLL_S)

    def _log(
        self,
        http: httpx.Client,
        anchor: Mapping[str, Any] | None,
        receipt: Receipt,
        terminal: Terminal,
        verdict: Verdict,
    ) -> dict[str, Any]:
        """Read the entries that speak of this answer, and their paths to one head."""
        path = "/v1/log/entries"
        build = build_subject(terminal.build, terminal.weight_hash)
        pages = [
            self._get(http, path, kind="receipt_key", subject=receipt.gateway_key_id),
            self._get(http, path, kind="release", subject=verdict.code_release),
            self._get(http, path, kind="catalog", subject=build, limit=1),
        ]
        if anchor is not None:
            pages.append(self._get(http, path, start=anchor["log_index"], limit=1))
        entries = {entry["index"]: entry for page in pages for entry in page["entries"]}
        head = self._head(http, above=max(entries, default=-1))
        return {
            "head": head["head"],
            "entries": [
                {
                    "index": index,
                    "entry": entry["entry"],
                    "path": self._get(
                        http, "/v1/log/proof/inclusion", index=index, size=head["tree_size"]
                    )["path"],
                }
                for index, entry in sorted(entries.items())
            ],
        }

    def _head(self, http: httpx.Client, *, above: int) -> dict[str, Any]:
        """Read a head that has everything; gateways keep one for a second."""
        give_up = time.monotonic() + TIMEOUT_S
        while True:
            head = self._get(http, "/v1/log/head")
            if head["tree_size"] > above:
                return head
            if time.monotonic() >= give_up:
                raise CollectError("the log's head does not cover its entries")
            time.sleep(POLL_S)

    def _get(self, http: httpx.Client, path: str, **params: str | int) -> dict[str, Any]:
        found = self._find(http, path, **params)
        if found is None:
            raise CollectError(f"the gateway has no {path}")
        return found

    def _find(self, http: httpx.Client, path: str, **params: str | int) -> dict[str, Any] | None:
        headers = {"authorization": f"Bearer {self.api_key}"} if "/receipts/" in path else {}
        try:
            answer = http.get(path, params=params, headers=headers)
        except httpx.HTTPError as error:
            raise CollectError(f"the gateway does not answer ({type(error).__name__})") from None
        if answer.status_code == _NOT_FOUND:
            return None
        if answer.status_code != _OK:
            raise CollectError(f"the gateway refused {path} with {answer.status_code}")
        if len(answer.content) > MAX_BUNDLE_BYTES:
            raise CollectError(f"the gateway's answer to {path} is too large")
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise CollectError(f"the gateway's answer to {path} is not an object")
        return found


def _read(receipt: Mapping[str, Any]) -> tuple[Receipt, Terminal, Verdict]:
    try:
        read = convert_document(dict(receipt), Receipt)
        terminal = decode_document(read.terminal, Terminal)
        return read, terminal, decode_document(read.verdict, Verdict)
    except MalformedError as error:
        raise CollectError(f"this is not a receipt: {error}") from None
