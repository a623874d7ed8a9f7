"""`docs/reference/enums.md`: closed vocabularies, of the wire and of what people see."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from enum import Enum
from importlib import import_module

from tools.reference import refusals
from tools.reference.descriptors import enums, read
from tools.reference.markdown import NOTE, cell, code, table

_WORDS = (
    ("darkbloom_gateway.errors", "ViolationFault", "what a provider did that ends its attempt"),
    ("darkbloom_gateway.confidential.quotes", "WhyNone", "`why_none` of `/v1/gateway/evidence`"),
    ("darkbloom_client.refusal", "Reason", "`code` of a refusal of end-to-end mode"),
    ("darkbloom_edge.errors", "EnvelopeFault", "why a sealed box is refused"),
    ("darkbloom_edge.errors", "RejectReason", "why a signed document does not count"),
    ("darkbloom_edge.sealed_request", "SealedFault", "why a consumer's envelope is refused"),
    ("darkbloom_edge.records", "RecordKind", "records of a sealed stream"),
    ("darkbloom_edge.challenge", "ChallengeFault", "what is wrong with a status"),
    ("darkbloom_attestation.evidence", "TrustReason", "why a machine is not trusted"),
    ("darkbloom_attestation.publishing", "Backing", "`backing` of public evidence"),
    ("darkbloom_billing.model", "Rejection", "why a settlement is refused"),
    ("darkbloom_billing.payments.model", "WithdrawalStatus", "states of a withdrawal"),
    ("darkbloom_registry.rollouts", "RolloutState", "states of a rollout"),
    ("darkbloom_provider.update.results", "UpdateResult", "what came of an update"),
)
"""Module, name, and what the words are for."""


def page() -> str:
    """Return the page."""
    parts = [
        "# Closed vocabularies\n\n",
        f"{NOTE}\n\n",
        "Words outside these lists do not occur. What to do about each error is in [errors.md](../errors.md), whose every row is compared with the code.\n\n",
        "## Errors of the HTTP surface\n\n",
        "Those of the token path and of what all routes share; other routes name theirs in [errors.md](../errors.md).\n\n",
        table(
            ("Status", "Type", "Code", "When"),
            [
                (str(status), code(kind), code(word), cell(when))
                for status, kind, word, when in refusals.rows()
            ],
        ),
        "## On the wire\n\n",
    ]
    for file in read():
        for one in enums(file):
            rows = [(code(name), str(number), cell(said)) for name, number, said in one.values]
            parts.append(f"### {one.name}\n\n`{file.proto.package}`. {one.comment}\n\n")
            parts.append(table(("Value", "Number", ""), rows))
    parts.append("## In answers, logs and commands\n\n")
    for module, name, purpose in _WORDS:
        kind = getattr(import_module(module), name)
        words = [(code(str(value)), cell(said)) for value, said in _members(kind)]
        parts.append(f"### {module.split('.')[0].removeprefix('darkbloom_')}: {name}\n\n")
        parts.append(f"{purpose[0].upper()}{purpose[1:]}.\n\n{table(('Word', ''), words)}")
    return "".join(parts).rstrip("\n") + "\n"


def _members(kind: type[Enum]) -> Iterator[tuple[object, str]]:
    """Yield values with the text under each of them."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(kind.__name__)
    said: dict[str, str] = {}
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = str(after.value.value)
            said[node.targets[0].id] = text
    for member in kind:
        yield member.value, said.get(member.name, "")
