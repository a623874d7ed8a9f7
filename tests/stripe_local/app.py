"""The local Stripe as an ASGI application: authentication, idempotency, faults, delivery."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.stripe_local import control, delivery, pages
from tests.stripe_local.api import Call, answer
from tests.stripe_local.form import parse
from tests.stripe_local.problems import ProblemError
from tests.stripe_local.world import World

MAX_CALLS = 1000
RETRY_S = 0.2
_KEY_PREFIX = "sk_test_"
_KEY_LIFE_S = 24 * 3600
"""Stripe answers a key with its first answer for a day."""
_METHODS = ["GET", "POST", "DELETE"]


def make_app(world: World) -> Starlette:
    """Return the application; it delivers events while its lifespan runs."""
    courier = _Courier(world)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient() as http, asyncio.TaskGroup() as tasks:
            courier.http = http
            running = tasks.create_task(courier.run())
            yield
            running.cancel()

    async def api(request: Request) -> Response:
        response = await _api(world, request)
        _remember(world, request)
        courier.wake()
        return response

    async def command(request: Request) -> Response:
        given = json.loads(await request.body() or b"{}")
        name = request.path_params["name"]
        try:
            if name == "deliver":
                taken = await courier.deliver(given.get("times", 1), given.get("order", "as_is"))
                return JSONResponse({"taken": taken})
            made = control.run(world, name, given)
        except ProblemError as problem:
            return JSONResponse(problem.body(), problem.status)
        world.save()
        courier.wake()
        return JSONResponse(made)

    async def page(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            if request.method == "GET":
                return pages.show(world, name)
            answered = await pages.answer(world, request, name)
        except ProblemError as problem:
            return JSONResponse(problem.body(), problem.status)
        world.save()
        courier.wake()
        return answered

    return Starlette(
        routes=[
            Route("/pay/{name}", page, methods=["GET", "POST"]),
            Route("/control/{name}", command, methods=["POST"]),
            Route("/v1/{path:path}", api, methods=_METHODS),
        ],
        lifespan=lifespan,
    )


class _Cut(Response):
    """An answer that breaks off before it says anything: the caller learns nothing, at once."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"9")],
        }
        await send(head)


class _Courier:
    """Delivers one event after another, and what was refused again a little later."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._work = asyncio.Event()
        self._busy = asyncio.Lock()
        self.http: httpx.AsyncClient | None = None

    def wake(self) -> None:
        """Look at the queue."""
        self._work.set()

    async def deliver(self, times: int, order: str) -> int:
        """Deliver everything that waits now."""
        if self.http is None:
            return 0
        async with self._busy:
            return await delivery.drain(self._world, self.http, times=times, order=order)

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            if not self._world.automatic or not self._world.queue:
                continue
            await self.deliver(1, "as_is")
            self._world.save()
            if self._world.queue:
                await self._world.clock.sleep(RETRY_S)
                self._work.set()


async def _api(world: World, request: Request) -> Response:
    if not _key(request).startswith(_KEY_PREFIX):
        problem = ProblemError(401, "Invalid API Key provided.", kind="invalid_request_error")
        return JSONResponse(problem.body(), 401)
    raw = (await request.body()).decode()
    pairs = parse_qsl(raw or request.url.query, keep_blank_values=True)
    account = request.headers.get("stripe-account", "")
    call = Call(request.method, request.url.path, parse(pairs), account)
    fault = _planted(world, call)
    if fault is not None and fault["when"] == "before":
        return await _fail(fault, request)

    key = request.headers.get("idempotency-key") if request.method == "POST" else None
    status, body = _once(world, call, key, sorted(pairs))
    world.save()
    if fault is not None:
        return await _fail(fault, request)
    return JSONResponse(body, status, headers={"request-id": f"req_{world.counter}"})


def _once(
    world: World, call: Call, key: str | None, pairs: list[tuple[str, str]]
) -> tuple[int, object]:
    """Answer, or repeat the first answer of an idempotency key."""
    digest = hashlib.sha256(json.dumps([call.method, call.path, pairs]).encode()).hexdigest()
    name = f"{call.account}/{key}"
    known = world.answers.get(name) if key else None
    if known is not None and world.now() - known["at"] < _KEY_LIFE_S:
        if known["digest"] != digest:
            problem = ProblemError(
                400,
                "Keys for idempotent requests can only be used with the same parameters.",
                kind="idempotency_error",
            )
            return 400, problem.body()
        return known["status"], known["body"]
    kept = True
    try:
        status, body = 200, answer(world, call)
    except ProblemError as problem:
        status, body, kept = problem.status, problem.body(), problem.kept
    body = json.loads(json.dumps(body))
    if key and kept:
        kept_answer = {"digest": digest, "status": status, "body": body, "at": world.now()}
        world.answers[name] = kept_answer
    return status, body


def _planted(world: World, call: Call) -> dict[str, object] | None:
    for fault in world.faults:
        if fault["method"] == call.method and call.path.startswith(fault["path"]):
            fault["times"] -= 1
            if fault["times"] == 0:
                world.faults.remove(fault)
            return dict(fault)
    return None


async def _fail(fault: dict[str, object], request: Request) -> Response:
    if fault["kind"] == "hang":
        # Never answer: wait until the caller has had enough.
        while (await request.receive())["type"] != "http.disconnect":
            continue
        return Response(status_code=499)
    if fault["kind"] == "cut":
        return _Cut()
    if fault["kind"] == "refuse":
        problem = ProblemError(400, "refused by a planted fault", code=str(fault["code"]))
    else:
        problem = ProblemError(500, "a planted fault", kind="api_error")
    return JSONResponse(problem.body(), problem.status, headers={"stripe-should-retry": "false"})


def _key(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else ""


def _remember(world: World, request: Request) -> None:
    world.calls.append(f"{request.method} {request.url.path}")
    del world.calls[:-MAX_CALLS]
