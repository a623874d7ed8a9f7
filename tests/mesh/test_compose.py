"""deploy/compose.yaml, followed literally as far as no containers are needed.

Each service's own command and variables, as processes of this machine: names of other services
become loopback ports, `/run/keys` and `/var/lib/darkbloom` directories of the test, and the two
stores the embedded ones.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from darkbloom_local.children import run_once
from darkbloom_local.environment import inherited
from darkbloom_local.ports import HOST, free_ports
from darkbloom_local.process import Child, Command

from tests.stores import postgres, valkey

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PATIENCE_S = 200.0
ADDRESS = re.compile(r"\b([a-z]+):(\d{4})\b")
OWN = re.compile(r"^0\.0\.0\.0:(\d+)$")
VARIABLE = re.compile(r"\$\{(\w+)(?::\?[^}]*)?\}")
PASSWORD = "0123456789abcdef"


class Stack:
    """The services of the file as processes."""

    def __init__(self, home: Path, database_url: str, redis_url: str) -> None:
        images = dict(
            line.split("=", 1)
            for line in (DEPLOY / "images.env").read_text().splitlines()
            if line and not line.startswith("#")
        )
        values = {**images, "STORE_PASSWORD": PASSWORD}
        text = VARIABLE.sub(lambda found: values[found[1]], (DEPLOY / "compose.yaml").read_text())
        self.services: Mapping[str, Any] = yaml.safe_load(text)["services"]
        self._home = home
        self._urls = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
        self._ports: dict[tuple[str, str], int] = {}
        self._spare = iter(free_ports(32))
        self._running = ExitStack()

    def port(self, service: str, port: str) -> int:
        """Return the port here for a port of a service there."""
        if (service, port) not in self._ports:
            self._ports[service, port] = next(self._spare)
        return self._ports[service, port]

    def translated(self, service: str, text: str) -> str:
        """Return a value of the file as it is on this machine."""
        if own := OWN.fullmatch(text):
            return f"{HOST}:{self.port(service, own[1])}"
        text = ADDRESS.sub(lambda found: f"{HOST}:{self.port(found[1], found[2])}", text)
        for inside in ("/run/keys", "/var/lib/darkbloom"):
            text = text.replace(inside, str(self._home / inside.strip("/")))
        return text

    def environment(self, service: str) -> dict[str, str]:
        told = self.services[service].get("environment", {})
        for name in set(told) & set(self._urls):
            # The file's URL names the store and the password of everybody.
            assert PASSWORD in told[name]
        return {
            **inherited(),
            **{name: self.translated(service, str(value)) for name, value in told.items()},
            **{name: url for name, url in self._urls.items() if name in told},
        }

    def argv(self, service: str) -> list[str]:
        """Return what the image's entry point would run."""
        found = self.services[service]
        if "entrypoint" in found:
            assert found["entrypoint"][0] == "python"
            start = found["entrypoint"][1:]
        else:
            start = ["-m", found["image"].partition(":")[0].replace("-", "_")]
        command = [self.translated(service, word) for word in found.get("command", ())]
        if service == "provider":
            # What compose leaves to the defaults are names of compose's network.
            for room, port in (("billing", 7102), ("attestation", 7103), ("registry", 7104)):
                command += [f"--{room}", f"{HOST}:{self.port(room, str(port))}"]
            command += ["--router", f"{HOST}:{self.port('router', '7410')}"]
            command += ["--gateway", f"http://{HOST}:{self.port('gateway', '8080')}"]
        return [sys.executable, *start, *command]

    async def once(self, service: str) -> None:
        log = self._home / f"{service}.log"
        await run_once(service, self.argv(service), self.environment(service), log, PATIENCE_S)

    def start(self, service: str) -> Child:
        log = self._home / f"{service}.log"
        command = Command(
            name=service, argv=self.argv(service), env=self.environment(service), log=log
        )
        child = Child.start(command)
        self._running.callback(child.kill)
        return child

    def close(self) -> None:
        self._running.close()


@contextmanager
def embedded() -> Iterator[tuple[str, str]]:
    with postgres() as cluster, cluster.database() as database_url, valkey() as redis_url:
        yield database_url, redis_url


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    for inside in ("run/keys", "var/lib/darkbloom"):
        (tmp_path / inside).mkdir(parents=True, mode=0o700)
    with embedded() as (database_url, redis_url):
        made = Stack(tmp_path, database_url, redis_url)
        try:
            yield made
        finally:
            made.close()


def order(services: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield what may start together, after all that it waits for."""
    waiting = {name: set(found.get("depends_on", ())) for name, found in services.items()}
    while waiting:
        free = sorted(name for name, needs in waiting.items() if not needs & set(waiting))
        assert free, "services wait for each other"
        yield free
        for name in free:
            del waiting[name]


@pytest.mark.mesh
@pytest.mark.timeout(420)
async def test_compose_leads_from_nothing_to_a_served_answer(stack: Stack) -> None:
    children = []
    for together in order(stack.services):
        async with asyncio.TaskGroup() as tasks:
            for service in set(together) - {"postgres", "valkey"}:
                if service == "keys" or service.startswith("migrate-"):
                    tasks.create_task(stack.once(service))
                else:
                    children.append(stack.start(service))

    key = next(stack._home.rglob("api-key")).read_text()
    body = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
    base = f"http://{HOST}:{stack.port('gateway', '8080')}"
    async with httpx.AsyncClient(
        base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=30
    ) as client:
        answer = await answered(client, body, children)
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] > 0


async def answered(
    client: httpx.AsyncClient, body: Mapping[str, Any], children: list[Child]
) -> dict[str, Any]:
    """Return the first answer; while the mesh comes up, it says why there is none."""
    last = "nobody was asked"
    pause = asyncio.Event()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for child in children:
                child.check()
            try:
                response = await client.post("/v1/chat/completions", json=body)
            except httpx.TransportError as error:
                last = type(error).__name__
            else:
                if response.status_code == 200:
                    found: dict[str, Any] = response.json()
                    return found
                last = response.text
                assert response.status_code in {401, 404, 429, 503}, last
            try:
                async with asyncio.timeout(0.5):
                    await pause.wait()
            except TimeoutError:
                continue
