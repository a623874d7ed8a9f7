"""Puts the document together: what the application has, and what the tables say of it."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson
from darkbloom_edge.dialects.schemas import COMPONENTS, SHAPES
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from darkbloom_gateway.openapi import (
    admin,
    earnings,
    end_to_end,
    evidence,
    inference,
    models,
    money,
    network,
    people,
    programmes,
    refusals,
    service,
    stripe,
)
from darkbloom_gateway.openapi.operation import SEALED, Access, Answer, Key, Operation
from darkbloom_gateway.shell import PROBES

TABLE: Mapping[Key, Operation] = {
    **inference.TABLE,
    **end_to_end.TABLE,
    **models.TABLE,
    **people.TABLE,
    **money.TABLE,
    **earnings.TABLE,
    **stripe.TABLE,
    **programmes.TABLE,
    **network.TABLE,
    **evidence.TABLE,
    **service.TABLE,
    **admin.TABLE,
}
"""Every operation that is described."""
_SCHEMAS: Mapping[str, Any] = {
    **refusals.SCHEMAS,
    **inference.SCHEMAS,
    **end_to_end.SCHEMAS,
    **COMPONENTS,
    **models.SCHEMAS,
    **people.SCHEMAS,
    **money.SCHEMAS,
    **evidence.SCHEMAS,
    **service.SCHEMAS,
    **admin.SCHEMAS,
}
_BEARER = {"type": "http", "scheme": "bearer"}
_SECURITY: Mapping[str, Any] = {
    "api_key": {**_BEARER, "description": "an API key, `sk-db-…`"},
    "login": {**_BEARER, "bearerFormat": "JWT", "description": "a login of a person"},
    "provider_token": {**_BEARER, "description": "a machine's token, from the device login"},
    "admin_key": {**_BEARER, "description": "the operator's key"},
    "x_api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "stripe_signature": {"type": "apiKey", "in": "header", "name": "Stripe-Signature"},
    "webhook_token": {"type": "apiKey", "in": "header", "name": "X-Webhook-Token"},
}
_ABOUT = (
    "Private inference on other people's machines. Change the base URL of an OpenAI or Anthropic "
    "client and keep everything else. Money is integer micro-USD unless a field is named `_usd`. "
    "Every refusal is in docs/errors.md."
)
_WITH_BODY = (400, 408, 413)
_SLUG = re.compile(r"[^a-z0-9]+")


def describe(routes: Sequence[BaseRoute], hot: Collection[Key], *, version: str) -> dict[str, Any]:
    """Return the document.

    Args:
        routes: of the application; their paths, parameters and docstrings are taken.
        hot: method and path of the token path, which the framework does not know.
        version: of this gateway.
    """
    document: dict[str, Any] = get_openapi(
        title="Darkbloom", version=version, description=_ABOUT, routes=routes
    )
    found: dict[str, dict[str, Any]] = document.get("paths", {})
    summaries = {**inference.SUMMARIES, **end_to_end.SUMMARIES}
    for method, path in hot:
        summary = summaries[path]
        found.setdefault(path, {})[method.lower()] = {
            "description": summary,
            "parameters": [inference.DETAILS_QUERY] if path in SHAPES else [],
        }
    document["paths"] = {
        path: {
            method: _operation(method.upper(), path, generated)
            for method, generated in sorted(methods.items())
        }
        for path, methods in sorted(found.items())
    }
    document["servers"] = [{"url": "/"}]
    document["tags"] = [
        {"name": name} for name in sorted({operation.tag for operation in TABLE.values()})
    ]
    used = orjson.dumps(document["paths"]).decode()
    document["components"] = {
        "schemas": dict(sorted(_SCHEMAS.items())),
        "responses": {
            name: response
            for name, response in refusals.COMPONENTS.items()
            if f'/responses/{name}"' in used
        },
        "headers": {**refusals.HEADERS, **inference.HEADERS},
        "securitySchemes": dict(_SECURITY),
    }
    return document


def undescribed(document: Mapping[str, Any]) -> list[Key]:
    """Return operations that no table speaks of, and rows of tables without an operation."""
    there = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    return sorted(there ^ TABLE.keys())


def _operation(method: str, path: str, generated: Mapping[str, Any]) -> dict[str, Any]:
    table = TABLE.get((method, path)) or Operation(
        tag="Other", access=Access.NOBODY_ASKED, answers={200: Answer("Success", {})}
    )
    is_inference = (method, path) in inference.TABLE
    parameters = [*map(_parameter, generated.get("parameters", ())), *_header_parameters(table)]
    lines = str(generated.get("description", "")).strip()
    return {
        "operationId": table.name or _id(method, path),
        "tags": [table.tag],
        "summary": lines.partition("\n")[0].rstrip("."),
        "description": lines,
        **({"parameters": parameters} if parameters else {}),
        **_request_body(table),
        "responses": {
            **{str(status): _success(one) for status, one in sorted(table.answers.items())},
            **refusals.responses(
                path,
                _refusals(path, table, generated),
                table.other_errors,
                inference=is_inference,
            ),
        },
        **_security(table),
    }


def _refusals(path: str, table: Operation, generated: Mapping[str, Any]) -> Iterable[int]:
    """Return every status that is no success."""
    statuses = {431, 500, *table.access.refusals, *table.limit.refusals, *table.refusals}
    if table.body is not None:
        statuses.update(_WITH_BODY)
    if table.headers or any(one["in"] == "query" for one in generated.get("parameters", ())):
        statuses.add(400)
    if table.asks_others:
        statuses.add(503)
    if path not in PROBES:
        # Networks are limited before anything else is looked at.
        statuses.add(429)
    return statuses - table.answers.keys()


def _parameter(generated: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter without the titles that the framework makes up."""
    schema = {name: value for name, value in generated["schema"].items() if name != "title"}
    return {**generated, "schema": schema}


def _header_parameters(table: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "header",
            "required": name in table.required_headers,
            "schema": schema,
        }
        for name, schema in table.headers.items()
    ]


def _request_body(table: Operation) -> dict[str, Any]:
    body = table.body
    if body is None:
        return {}
    sealed = {"$ref": "#/components/schemas/SealedEnvelope"}
    content = {
        kind: {"schema": sealed if kind in SEALED else body.schema} for kind in body.media_types
    }
    return {"requestBody": {"required": body.required, "content": content}}


def _success(answer: Answer) -> dict[str, Any]:
    names = answer.headers or {"X-Request-ID": "X-Request-ID"}
    headers = {
        name: {"$ref": f"#/components/headers/{component}"} for name, component in names.items()
    }
    return {
        "description": answer.description,
        "headers": headers,
        **(
            {"content": {kind: {"schema": schema} for kind, schema in answer.content.items()}}
            if answer.content
            else {}
        ),
    }


def _security(table: Operation) -> dict[str, Any]:
    schemes: list[dict[str, list[str]]] = [{name: []} for name in table.access.schemes]
    return {"security": schemes} if schemes else {}


def _id(method: str, path: str) -> str:
    """Return a name that is the same for ever: what is done to what."""
    return f"{method.lower()}_{_SLUG.sub('_', path.removeprefix('/v1').lower()).strip('_')}"
