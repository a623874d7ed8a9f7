"""The prober against a gateway, and against none."""

import asyncio
from pathlib import Path
from threading import Event

import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb
from darkbloom_gateway.probe import Prober, Question, main
from darkbloom_local.ports import HOST, free_ports
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.telemetry import Metrics

from tests.component.gateway.harness import Harness
from tests.component.gateway.neighbours import API_KEY
from tests.fakes.router import scripted


class Probe:
    """A prober, and what it shows."""

    def __init__(self, url: str, key: str = API_KEY) -> None:
        self._metrics = Metrics(version="1")
        self._prober = Prober(Question(url, "tiny", Secret(key)), self._metrics, SystemClock())

    async def once(self) -> str:
        async with asyncio.timeout(90):
            return await asyncio.to_thread(self._prober.once)

    @property
    def last(self) -> float:
        found = self._metrics.registry.get_sample_value("darkbloom_synthetic_success_seconds")
        return found or 0.0

    def asked(self, outcome: str) -> float | None:
        return self._metrics.registry.get_sample_value(
            "darkbloom_synthetic_requests_total", {"outcome": outcome}
        )


async def test_an_answer_is_a_success_and_moves_its_time(mesh: Harness) -> None:
    probe = Probe(mesh.url)
    assert await probe.once() == "answered"
    assert probe.last > 1_600_000_000
    assert probe.asked("answered") == 1


async def test_an_answer_that_is_none_and_a_key_that_nobody_knows_move_nothing(
    mesh: Harness,
) -> None:
    refused = lane_pb.Refused(http_status=503, type="model_unavailable")
    mesh.router.default = scripted("x", refused=refused)
    probe = Probe(mesh.url)
    assert await probe.once() == "failed"
    stranger = Probe(mesh.url, key="sk-db-nobody")
    assert await stranger.once() == "refused"
    assert probe.last == stranger.last == 0


async def test_where_nobody_listens_it_says_so() -> None:
    (port,) = free_ports(1)
    probe = Probe(f"http://{HOST}:{port}")
    assert await probe.once() == "unreachable"
    assert probe.last == 0


def test_a_prober_without_its_secrets_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--url", "http://nowhere", "--secrets", str(tmp_path)]
    assert main(arguments, SystemClock(), Event()) == 2
    assert "FileNotFoundError" in capsys.readouterr().err
