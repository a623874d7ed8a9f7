"""Holds every answer that a test gets to the committed OpenAPI document."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from jsonschema import Draft202012Validator

PAGE = Path(__file__).parents[3] / "docs/openapi.json"
JSON, EVENTS = "application/json", "text/event-stream"
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
    request = response.request
    content = response.content if whole else None
    check_answer(request.method, request.url.path, response.status_code, response.headers, content)


def check_answer(
    method: str, path: str, status: int, headers: Mapping[str, str], content: bytes | None
) -> None:
    """Fail where an answer is not what the document says; without content it is not looked at."""
    operation = operation_of(method, path)
    if operation is None:
        return
    what = f"{method} {path} answered {status}"
    said = operation["responses"].get(str(status))
    assert said is not None, f"{what}, which docs/openapi.json does not know"
    said = resolved(said)
    for name, header in said.get("headers", {}).items():
        missing = resolved(header).get("required") and name.lower() not in headers
        assert not missing, f"{what} without {name}"
    if "content" not in said:
        return
    media_type = headers.get("content-type", "").partition(";")[0]
    assert media_type in said["content"], f"{what} as {media_type}, not in docs/openapi.json"
    if content is None:
        return
    shape = said["content"][media_type]
    if media_type == JSON:
        hold(json.loads(content), shape["schema"], what)
    elif media_type == EVENTS:
        for event in events(content):
            hold(event, shape["schema"]["x-event"], what)


def hold(found: object, schema: dict[str, Any], what: str) -> None:
    faults = list(validator(json.dumps(schema)).iter_errors(found))
    assert not faults, f"{what}, against docs/openapi.json: {faults[0]}"


def events(stream: bytes) -> Iterator[object]:
    """Yield what the `data:` lines of a stream hold; a sealed one holds no JSON."""
    for line in stream.splitlines():
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))


class Checked(httpx.AsyncClient):
    """A client that believes no answer which the document does not describe."""

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **more: Any
    ) -> httpx.Response:
        response = await super().send(request, stream=stream, **more)
        check(response, whole=not stream)
        return response
