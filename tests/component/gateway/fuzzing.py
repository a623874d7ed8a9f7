"""Requests out of nothing: schemathesis draws them from a document, the gateway answers them."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, Response
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SERVER_FAULT = 500
HONEST = frozenset({"offer_unreachable"})
"""Codes of a 503 that is the right answer: an offer of a router that is not there."""
for _media_type in ("application/vnd.darkbloom.sealed",):
    schemathesis.serializer.alias(_media_type, "application/octet-stream")
Judge = Callable[[Case, Response], None]


@dataclass
class Tally:
    """How often each operation answered what."""

    answers: dict[tuple[str, int], int] = field(default_factory=dict)

    def note(self, label: str, status: int) -> None:
        self.answers[label, status] = self.answers.get((label, status), 0) + 1

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    def statuses(self, label: str) -> set[int]:
        return {status for name, status in self.answers if name == label}


def operations(
    document: dict[str, Any], tag: str | None = None
) -> list[APIOperation[Any, Any, Any, Any]]:
    """Return every operation of a document, or of one tag; credentials are the caller's affair."""
    generation = GenerationConfig(with_security_parameters=False, deterministic=True)
    config = SchemathesisConfig(
        projects=ProjectsConfig(default=ProjectConfig(generation=generation))
    )
    schema = schemathesis.openapi.from_dict(document, config=config)
    found = [one.ok() for one in schema.get_all_operations()]
    return [one for one in found if tag is None or tag in (one.tags or ())]


def conforms(case: Case, response: Response) -> None:
    """Fail on a fault of the server, and on anything that the document does not say."""
    if response.status_code >= SERVER_FAULT:
        assert response.json()["error"]["code"] in HONEST, response.text[:300]
    case.validate_response(response, checks=CHECKS)


def probe(
    operation: APIOperation[Any, Any, Any, Any],
    *,
    base_url: str,
    session: requests.Session,
    headers: Mapping[str, str],
    examples: int,
    tally: Tally,
    mode: GenerationMode = GenerationMode.POSITIVE,
    judge: Judge = conforms,
    known: Mapping[str, str] | None = None,
    media_type: str | None = None,
) -> None:
    """Send `examples` requests of one operation and judge the answers.

    Args:
        operation: what is called.
        base_url: of the gateway.
        session: keeps the connection.
        headers: credentials; empty for a stranger.
        examples: how many, always the same ones.
        tally: counts.
        mode: requests that fit the document, or such as break it somewhere.
        judge: raises on a bad answer.
        known: values of path parameters, and of members of the body, that exist.
        media_type: of the body; any that is documented where it is absent.
    """
    names = {parameter.name for parameter in operation.path_parameters}
    real = known or {}
    fixed = {name: value for name, value in real.items() if name in names}

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(
        case=operation.as_strategy(
            generation_mode=mode, path_parameters=fixed or None, media_type=media_type
        )
    )
    def test(case: Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body.update({name: real[name] for name in real.keys() & case.body.keys()})
        response = case.call(base_url=base_url, session=session, headers=dict(headers), timeout=60)
        tally.note(operation.label, response.status_code)
        try:
            judge(case, response)
        except BaseException as error:
            error.add_note(
                f"{case.as_curl_command()}\n{response.status_code} {response.text[:500]}"
            )
            raise

    # Some operations have nothing that could be broken.
    with contextlib.suppress(Unsatisfiable):
        test()


def schemes(operation: APIOperation[Any, Any, Any, Any]) -> Sequence[str]:
    """Return the names of security schemes, any of which does."""
    return [name for one in operation.definition.raw.get("security", ()) for name in one]
