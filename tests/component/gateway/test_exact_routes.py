"""What is no endpoint: 404 and 405 alike everywhere, in JSON, with every method of a path."""

from collections import defaultdict
from collections.abc import Iterator

import pytest
from starlette.routing import BaseRoute

from tests.component.gateway.harness import BEARER, Harness

pytestmark = pytest.mark.asyncio(loop_scope="session")

METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
NOT_OFFERED = [
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/files",
    "/v1/images/generations",
    "/v1/audio/transcriptions",
    "/v1/batches",
    "/v1/assistants",
    "/v1/fine_tuning/jobs",
    "/v1/telemetry/events",
    "/v1/provider/node-earnings",
    "/v1",
    "/v1/chat/completions/",
    "/V1/chat/completions",
]


def routes(found: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Yield path and method of every endpoint, of routers in routers as well."""
    for route in found:
        inner = getattr(route, "routes", None) or getattr(
            getattr(route, "original_router", None), "routes", None
        )
        if inner:
            yield from routes(inner)
            continue
        for method in getattr(route, "methods", None) or ():
            yield str(getattr(route, "path", "")), method


def surface(house: Harness) -> dict[str, set[str]]:
    by_path = defaultdict(set)
    for path, method in routes(house.worker.application()._app.router.routes):
        by_path[path].add(method)
    return by_path


def assert_no_endpoint(got: object, status: int, path: str) -> None:
    body = got.json()  # type: ignore[attr-defined]
    anthropic = path.startswith("/v1/messages")
    kind = "not_found_error" if anthropic and status == 404 else "invalid_request_error"
    error = body["error"]
    assert got.status_code == status, path  # type: ignore[attr-defined]
    assert (error["type"], error["code"]) == (kind, "invalid_request_error")
    assert set(error) == {"message", "type", "code"}
    assert got.headers["content-type"] == "application/json"  # type: ignore[attr-defined]
    assert got.headers["x-request-id"]  # type: ignore[attr-defined]


async def test_another_method_of_every_path_is_405_and_allow_names_the_right_ones(
    house: Harness,
) -> None:
    found = surface(house)
    assert found["/v1/keys"] == {"GET", "POST"}
    assert len(found) > 50
    plain = {path: methods for path, methods in found.items() if "{" not in path}
    for path, methods in plain.items():
        # A path of a named thing may look the same, as `/v1/models/{id}` does.
        alike = {
            method
            for other, more in found.items()
            if "{" in other and path.startswith(other.partition("{")[0])
            for method in more
        }
        method = min(set(METHODS) - methods - alike, default="")
        if not method:
            continue
        got = await house.http.request(method, path, headers=BEARER)
        assert_no_endpoint(got, 405, path)
        allowed = set(got.headers["allow"].split(", "))
        assert methods <= allowed <= methods | alike, path


@pytest.mark.parametrize("path", NOT_OFFERED)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_what_is_not_offered_is_404_in_json(house: Harness, path: str, method: str) -> None:
    got = await house.http.request(method, path, headers=BEARER)

    assert_no_endpoint(got, 404, path)
    assert "not implemented" in got.json()["error"]["message"]


async def test_a_known_path_says_its_methods_exactly(house: Harness) -> None:
    for path, allow in {
        "/v1/chat/completions": "POST",
        "/v1/messages": "POST",
        "/v1/messages/count_tokens": "POST",
        "/v1/models": "GET",
        "/v1/keys": "GET, POST",
        "/v1/pricing": "DELETE, GET, PUT",
        "/v1/me": "DELETE, GET",
        "/health": "GET",
    }.items():
        for method in set(METHODS) - set(allow.split(", ")):
            got = await house.http.request(method, path, headers=BEARER)
            assert_no_endpoint(got, 405, path)
            assert got.headers["allow"] == allow
