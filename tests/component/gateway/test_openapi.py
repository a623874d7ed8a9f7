"""The OpenAPI document: complete, fresh, valid, and without anybody else's origin."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from darkbloom_gateway.openapi.document import undescribed
from jsonschema import Draft202012Validator

from tests.component.gateway.conformance import PAGE, document, operation_of, resolved, validator
from tests.component.gateway.harness import Harness
from tests.unit.gateway.test_error_catalogue import rows


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from nodes(child)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@pytest.mark.asyncio(loop_scope="session")
async def test_the_committed_document_is_the_one_that_is_served(house: Harness) -> None:
    served = await house.http.get("/openapi.json")

    assert served.json() == json.loads(PAGE.read_text()), "run make openapi"
    assert undescribed(served.json()) == []


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]

    assert len(set(names)) == len(names)
    assert all(operation["summary"] for _, _, operation in operations())


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    for node in nodes(document()):
        if "$ref" in node:
            assert resolved(node)
    for schema in document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_example_of_a_refusal_has_the_shape_of_refusals() -> None:
    seen = 0
    for response in document()["components"]["responses"].values():
        content = response["content"]["application/json"]
        for example in content.get("examples", {}).values():
            validator(json.dumps(content["schema"])).validate(example["value"])
            seen += 1
    assert seen > 20


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"]
)
def test_inference_lists_every_status_of_the_error_catalogue(path: str) -> None:
    operation = operation_of("POST", path)
    assert operation is not None

    # Another method is another operation, and an offer is used on a path of its own.
    expected = {str(status) for status, *_ in rows(1) | rows(2)} - {"405", "410"}
    assert expected <= set(operation["responses"])


def test_an_early_answer_of_too_many_requests_says_when_to_come_again() -> None:
    for _, path, operation in operations():
        refused = operation["responses"].get("429")
        if refused is not None:
            assert "Retry-After" in resolved(refused)["headers"], path


def test_the_document_names_no_other_origin() -> None:
    text = PAGE.read_text()

    assert "http://" not in text
    assert "https://" not in text
