"""Holds every answer that a test gets to the committed OpenAPI document."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from jsonschema import Draft202012Validator

PAGE = Path(__file__).parents[3] / "docs/openapi.json"
_UNROUTED = (404, 405)
_PARAMETER = re.compile(r"\\\{[^}]*\\\}")


class Place(NamedTuple):
    """One path of the document."""

    pattern: re.Pattern[str]
    methods: dict[str, Any]


@cache
def document() -> dict[str, Any]:
    found = json.loads(PAGE.read_text())
    assert isinstance(found, dict)
    return found


@cache
def places() -> list[Place]:
    """Return all paths, those without parameters first, then longer ones before shorter."""
    paths = sorted(document()["paths"], key=lambda path: ("{" in path, -len(path)))
    return [
        Place(
            re.compile(_PARAMETER.sub(".+", re.escape(path))),
            document()["paths"][path],
        )
        for path in paths
    ]


@cache
def validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({**json.loads(schema), "components": document()["components"]})


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, if it is one."""
    while "$ref" in node:
        target: Any = document()
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    for place in places():
        if place.pattern.fullmatch(path):
            found = place.methods.get(method.lower())
            return found if isinstance(found, dict) else None
    return None


def check(response: httpx.Response, *, whole: bool) -> None:
    """Fail where an answer is not what the document says.

    Args:
        response: of the gateway.
        whole: whether the body was read; a stream is looked at from outside only.
    """
    method, path = response.request.method, response.request.url.path
    operation = operation_of(method, path)
    if operation is None:
        return
    what = f"{method} {path} answered {response.status_code}"
    said = operation["responses"].get(str(response.status_code))
    assert said is not None, f"{what}, which docs/openapi.json does not know"
    said = resolved(said)
    for name, header in said.get("headers", {}).items():
        missing = resolved(header).get("required") and name not in response.headers
        assert not missing, f"{what} without {name}"
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if "content" in said:
        assert media_type in said["content"], f"{what} as {media_type}, not in docs/openapi.json"
        if whole and media_type == "application/json":
            schema = json.dumps(said["content"][media_type]["schema"])
            faults = list(validator(schema).iter_errors(json.loads(response.content)))
            assert not faults, f"{what}, against docs/openapi.json: {faults[0]}"


class Checked(httpx.AsyncClient):
    """A client that believes no answer which the document does not describe."""

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **more: Any
    ) -> httpx.Response:
        response = await super().send(request, stream=stream, **more)
        check(response, whole=not stream)
        return response
