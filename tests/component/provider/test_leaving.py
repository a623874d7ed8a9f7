"""Real agents that are asked to leave: by a command, by their successor, by force, by the clock."""

import asyncio
import json
import sys
from pathlib import Path

import msgspec
import pytest
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.testing import serve_ephemeral
from darkbloom_provider import lock
from darkbloom_provider.cli.background import background
from darkbloom_provider.home import Home
from darkbloom_provider.service.background import Background
from darkbloom_provider.service.control import NoAnswerError, Question, ask
from darkbloom_provider.service.errors import ServiceError, StillDrainingError
from darkbloom_provider.service.guard import Watch
from darkbloom_provider.service.intent import read_intent
from darkbloom_provider.service.leaving import leave
from darkbloom_provider.service.plan import (
    PROVIDER_LABEL,
    WATCHDOG_LABEL,
    ServicePlan,
    provider_plan,
)
from darkbloom_provider.service.program import program_here
from darkbloom_provider.service.watchdog import read_watch
from darkbloom_provider.settings import load_settings

from tests.component.provider.test_process import now_ms, process
from tests.fakes.provider_router import PATIENCE_S, FakeRouter


async def facts(home: Home):
    return await asyncio.to_thread(ask, home.control, Question(op="facts"))


async def test_a_successor_asks_for_the_place_and_what_runs_is_finished_first(tmp_path):
    router = FakeRouter()
    async with serve_ephemeral(router.register) as target, process(tmp_path, target) as agent:
        home = Home(root=agent.home)
        await agent.start()
        first = await router.next_link()
        await first.registration()
        before = await facts(home)
        assert (before.pid, before.phase) == (agent.child.pid, "serving")
        assert home.control.stat().st_mode & 0o777 == 0o600
        slow = json.dumps({"text": "one two three four five", "interval_s": 0.05})
        running = first.ask(f"/script {slow}", now_ms=now_ms()).send()
        await running.delta()

        old = agent.child
        await agent.start("--timeout", "60")
        async with asyncio.timeout(PATIENCE_S * 3):
            assert await old.wait() == 0
        second = await router.next_link()
        await second.registration()

        assert (await running.answer()).terminal.outcome == "completed"
        after = await facts(home)
        assert after.pid == agent.child.pid
        assert after.generation != before.generation
        assert await agent.stop() == 0
        with pytest.raises(NoAnswerError):
            ask(home.control, Question(op="facts"))


async def test_a_drain_outlives_the_patience_of_its_command_and_force_ends_it(tmp_path):
    router = FakeRouter()
    async with serve_ephemeral(router.register) as target, process(tmp_path, target) as agent:
        home = Home(root=agent.home)
        await agent.start()
        link = await router.next_link()
        await link.registration()
        endless = json.dumps({"text": "word " * 100, "interval_s": 0.2})
        running = link.ask(f"/script {endless}", now_ms=now_ms()).send()
        await running.delta()

        with pytest.raises(StillDrainingError, match="still finishing"):
            await asyncio.to_thread(leave, home, timeout_s=0.2)
        assert (await facts(home)).phase == "draining"
        assert lock.holder(home.lock) == agent.child.pid

        assert await asyncio.to_thread(leave, home, timeout_s=0, force=True) == agent.child.pid
        async with asyncio.timeout(PATIENCE_S * 3):
            assert await agent.child.wait() == 0
        # What was delivered is settled even so.
        assert (await running.terminal()).outcome == "cancelled"
        assert leave(home, timeout_s=0) is None


class Spawning:
    """A service manager that runs what it is given, as a child of the test."""

    name = "test"

    def __init__(self) -> None:
        self.plans: dict[str, ServicePlan] = {}
        self.started: list[str] = []
        self.stopped: list[str] = []

    def install(self, plan: ServicePlan) -> Path:
        self.plans[plan.label] = plan
        return Path("/dev/null")

    def start(self, label: str) -> None:
        self.started.append(label)

    def stop(self, label: str) -> None:
        self.stopped.append(label)

    def uninstall(self, label: str) -> None:
        self.plans.pop(label, None)

    def installed(self, label: str) -> bool:
        return label in self.plans

    def running(self, label: str) -> bool:
        return label in self.started


def test_a_start_by_hand_lifts_the_guard_that_the_watchdog_left(tmp_path):
    home, manager = Home(root=tmp_path), Spawning()
    home.watchdog_state.write_bytes(msgspec.json.encode(Watch(version="1.0.0", tripped=True)))
    assert read_watch(home.watchdog_state).tripped
    Background(home=home, manager=manager, program=program_here(home.app), environment={}).start()
    assert manager.started == [PROVIDER_LABEL, WATCHDOG_LABEL]
    assert read_watch(home.watchdog_state) == Watch()


async def test_restart_is_believed_only_from_a_new_process_that_is_authorised(tmp_path):
    router, manager = FakeRouter(), Spawning()
    async with serve_ephemeral(router.register) as target, process(tmp_path, target) as agent:
        home = Home(root=agent.home)
        service = Background(
            home=home, manager=manager, program=program_here(home.app), environment={}
        )
        with pytest.raises(ServiceError, match="not installed"):
            service.restart()
        manager.plans[PROVIDER_LABEL] = None
        await agent.start()
        link = await router.next_link()
        await link.registration()
        before = await facts(home)

        # The old one goes, nobody comes.
        with pytest.raises(ServiceError, match="none runs"):
            await asyncio.to_thread(service.restart, startup_s=0.3)
        assert agent.child.returncode == 0 or await agent.child.wait() == 0
        assert read_intent(home.intent).wanted == "running"

        await agent.start()
        confirming = asyncio.create_task(
            asyncio.to_thread(service.confirm, before.generation, PATIENCE_S * 3)
        )
        link = await router.next_link()
        await link.registration()
        fresh = await confirming
        assert fresh.authorised
        assert fresh.generation != before.generation

        stopped = await asyncio.to_thread(service.stop)
        assert stopped == fresh.pid
        assert manager.stopped == [PROVIDER_LABEL] or "io.darkbloom.watchdog" in manager.stopped
        assert read_intent(home.intent).wanted == "stopped"
        async with asyncio.timeout(PATIENCE_S * 3):
            await agent.child.wait()


def test_the_service_reads_the_provider_toml_of_whoever_installed_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DARKBLOOM_PROVIDER_HOME", raising=False)
    monkeypatch.delenv("DARKBLOOM_PROVIDER_CONFIG", raising=False)
    made = background()
    plan = provider_plan(made.home, made.program, made.environment, ())

    usual = tmp_path / ".config" / "darkbloom" / "provider.toml"
    assert plan.environment["DARKBLOOM_PROVIDER_CONFIG"] == str(usual)
    assert plan.environment["DARKBLOOM_PROVIDER_HOME"] == str(tmp_path / ".darkbloom")
    # A file that is not there yet is an empty one.
    assert load_settings(plan.environment).problems == ()


async def test_nonsense_on_the_control_socket_costs_nothing(tmp_path):
    async with process(tmp_path, "127.0.0.1:1") as agent:
        home = Home(root=agent.home)
        await agent.start()
        async with asyncio.timeout(PATIENCE_S * 3):
            while not home.control.exists():
                await SystemClock().sleep(0.02)
        for nonsense in (b"\n", b"{}\n", b'{"op":"kill"}\n', b"x" * 100_000):
            reader, writer = await asyncio.open_unix_connection(str(home.control))
            try:
                writer.write(nonsense)
                async with asyncio.timeout(PATIENCE_S * 3):
                    assert await reader.read() == b""
            except ConnectionError:
                pass
            finally:
                writer.close()
        assert (await facts(home)).pid == agent.child.pid
        assert await agent.stop() == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="reads the zone of the process from TZ")
async def test_a_closed_schedule_keeps_the_machine_away_and_says_until_when(tmp_path):
    router = FakeRouter()
    async with (
        serve_ephemeral(router.register) as target,
        process(tmp_path, target, TZ="UTC") as agent,
    ):
        now = SystemClock().now()
        # A day that is neither today nor one beside it.
        day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(now.weekday() + 3) % 7]
        (agent.home / "provider.toml").write_text(
            f'[schedule]\nenabled = true\n[[schedule.windows]]\ndays = ["{day}"]\n'
            'start = "08:00"\nend = "09:00"\n'
        )
        home = Home(root=agent.home)
        await agent.start()
        async with asyncio.timeout(PATIENCE_S * 3):
            while not home.state.exists() or agent.state()["connection"] != "closed":
                await SystemClock().sleep(0.02)
        told = await facts(home)
        assert told.phase == "closed"
        assert "T08:00:00" in str(told.opens_at)
        assert agent.state()["slots"] == []
        assert router.calls == 0
        assert await agent.stop() == 0
        assert agent.state()["connection"] == "stopped"
