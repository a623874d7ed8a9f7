"""The key that consumers seal to is changed under sealed load: by rotation, then after a leak."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED

from tests.drills.desk import python
from tests.drills.drill import Drill, Outcome
from tests.drills.load import Answer
from tests.drills.rooms import both, gateways, well
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import CALL_S, PATIENCE_S, Stream, script, until
from tests.sealed_client import SealedCall, chat_body

_CLIENTS = 4
_TOKENS = 12
_LEAD_S = 60
"""The command's own: both gateways are rolled within it."""
_COMMAND = ("-m", "darkbloom_gateway.sealing_file")
_LIMIT_S = 180.0
_PAUSE_S = 0.25


class Sealed:
    """Clients that seal to the key that they have, and read the page again when told to.

    Args:
        stage: Its clock.
        mesh: Whose development account asks.
    """

    def __init__(self, stage: Stage, mesh: Mesh) -> None:
        self._clock = stage.clock
        self._mesh = mesh
        self.urls = gateways(mesh)
        self.answers: list[Answer] = []
        self.refused: Counter[str] = Counter()
        self.kids: Counter[str] = Counter()
        self.stopping = False

    async def client(self, number: int) -> None:
        """Ask one question after the other."""
        async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
            page = await page_of(http, self.urls[number % 2])
            turn = number
            while not self.stopping:
                turn += 1
                page = await self._ask(http, self.urls[turn % 2], page)

    async def _ask(self, http: httpx.AsyncClient, url: str, page: Any) -> Any:
        """Ask once; return the page to go by from now on."""
        asked_at = self._clock.monotonic()
        body = chat_body(model=SCRIPTED, messages=script(tokens=_TOKENS), stream=True)
        call = SealedCall(page, self._mesh.api_key, body)
        path = f"{url}{call.path}"
        try:
            answer = await http.post(path, json=call.envelope, headers=call.headers)
        except httpx.TransportError as error:
            self.refused[type(error).__name__] += 1
            await self._clock.sleep(_PAUSE_S)
            return page
        if answer.headers["content-type"].startswith("text/event-stream"):
            self.kids[page["kid"]] += 1
            self.answers.append(self._answer(call, answer, asked_at))
            return page
        said = answer.json().get("error", {}) if "error" in answer.text else {}
        self.refused[str(said.get("code") or answer.status_code)] += 1
        if said.get("code") == "kid_mismatch":
            return await page_of(http, url)
        await self._clock.sleep(_PAUSE_S)
        return page

    def _answer(self, call: SealedCall, answer: httpx.Response, asked_at: float) -> Answer:
        stream = Stream(answer.status_code, answer.headers)
        for event in call.events(answer):
            data = event.removeprefix(b"data: ")
            if data == b"[DONE]":
                stream.done += 1
            else:
                stream.events.append(json.loads(data))
        now = self._clock.monotonic()
        return Answer(
            stream=stream,
            wanted=_TOKENS,
            refusals=(),
            reasons=(),
            asked_at=asked_at,
            sent_at=asked_at,
            first_at=now,
            ended_at=now,
        )

    def grown(self, by: int) -> Callable[[], Awaitable[bool]]:
        """Return the condition that so many more answers have come."""
        aim = len(self.answers) + by

        async def enough() -> bool:
            return len(self.answers) >= aim

        return enough


async def play(stage: Stage) -> Outcome:
    """Rotate within the lead, roll both gateways, then make a fresh file as after a leak."""
    odd: list[str] = []
    async with stage.mesh(routers=2, replicas=2) as mesh:
        await well(mesh, 1)
        ledger, file = await Ledger.begin(mesh), mesh.state.root / "keys" / "sealing-keys"
        async with _sealing(stage, mesh) as load:
            await until(load.grown(_CLIENTS), "sealed answers before")
            (old,) = await _kids(load.urls)
            stage.progress("a successor is added, and the gateways are rolled within its lead")
            begun_at = stage.clock.monotonic()
            new = await _rotated(file)
            for name in both("gateway"):
                await mesh.restart(name)
                await well(mesh, 1)
            if (rolled_s := stage.clock.monotonic() - begun_at) > _LEAD_S:
                odd.append(f"rolling took {rolled_s:.0f} s, longer than the lead")
            await until(_shows(load.urls, new, [old]), "each publishes the new key", 90)
            await until(load.grown(_CLIENTS), "the old key opens for a while")
            if load.refused["kid_mismatch"]:
                odd.append("a key in its grace was refused")

            stage.progress("the file leaked: a fresh one takes its place")
            leaked_at = stage.clock.monotonic()
            await asyncio.to_thread(file.unlink)
            fresh = await _rotated(file, "--lead", "0")
            for name in both("gateway"):
                await mesh.restart(name)
                await well(mesh, 1)
            await until(_shows(load.urls, fresh, []), "each gateway publishes the fresh key alone")
            recovery_s = stage.clock.monotonic() - leaked_at
            await until(load.grown(2 * _CLIENTS), "answers to the fresh key")
            odd += await _forgotten(mesh, load.urls, old)
        toll = await ledger.toll(load.answers)
    if not load.kids[fresh] or not load.kids[old]:
        odd.append(f"answers by key: {dict(load.kids)}")
    if load.refused["kid_mismatch"] > 2 * _CLIENTS:
        odd.append(f"clients were told of another key {load.refused['kid_mismatch']} times")
    lost = [one for one in load.answers if one.words != _TOKENS]
    return Outcome(
        lost_requests=len(lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected, *(one.told() for one in lost)],
        facts={
            "answers": len(load.answers),
            "rolled_s": round(rolled_s, 1),
            **{f"asked_again_{why}": count for why, count in sorted(load.refused.items())},
        },
    )


@asynccontextmanager
async def _sealing(stage: Stage, mesh: Mesh) -> AsyncIterator[Sealed]:
    """Keep sealed clients up for the length of the block."""
    load = Sealed(stage, mesh)
    async with asyncio.timeout(_LIMIT_S), asyncio.TaskGroup() as tasks:
        for number in range(_CLIENTS):
            tasks.create_task(load.client(number))
        try:
            yield load
        finally:
            load.stopping = True


async def page_of(http: httpx.AsyncClient, url: str) -> Any:
    """Return what a gateway publishes, as soon as it does."""

    async def shown() -> Any:
        try:
            answer = await http.get(f"{url}/v1/encryption-key")
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == httpx.codes.OK else None

    return await until(shown, "the page of the key")


async def _pages(urls: list[str]) -> list[Any]:
    async with httpx.AsyncClient(timeout=CALL_S) as http:
        return [await page_of(http, url) for url in urls]


async def _kids(urls: list[str]) -> set[str]:
    return {page["kid"] for page in await _pages(urls)}


def _shows(urls: list[str], kid: str, previous: list[str]) -> Callable[[], Awaitable[bool]]:
    async def all_do() -> bool:
        found = [
            (page["kid"], [one["kid"] for one in page.get("previous", ())])
            for page in await _pages(urls)
        ]
        return found == [(kid, previous)] * len(urls)

    return all_do


async def _rotated(file: Path, *words: str) -> str:
    """Run the runbook's command; return the id of the key that it added."""
    said = await python({}, *_COMMAND, str(file), *words)
    assert said.code == 0, said.err
    return said.out.split()[0]


async def _forgotten(mesh: Mesh, urls: list[str], old: str) -> list[str]:
    """Whoever seals to the leaked key is told so, by every gateway."""
    odd = []
    body = chat_body(model=SCRIPTED, messages=script(tokens=1))
    async with httpx.AsyncClient(timeout=CALL_S) as http:
        for url, page in zip(urls, await _pages(urls), strict=True):
            call = SealedCall({**page, "kid": old}, mesh.api_key, body)
            path = f"{url}{call.path}"
            answer = await http.post(path, json=call.envelope, headers=call.headers)
            if "kid_mismatch" not in answer.text:
                odd.append(f"a leaked key is answered with {answer.status_code} {answer.text}")
    return odd


DRILL = Drill(
    name="sealing-keys",
    claim="the sealing key changes under sealed load: nobody notices, after a leak once each",
    runbooks=("sealing-keys", "secret-leak"),
    limit_s=240,
    play=play,
)
