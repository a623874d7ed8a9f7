"""The gateway as a process: refused configuration, a taken port, workers, SIGTERM."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from darkbloom_mesh.clock import SystemClock

SECONDS = 30


def environment(home: Path, **changes: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],  # noqa: TID251 - a child process needs it
        "DARKBLOOM_ENV": "development",
        "REDIS_URL": "redis://127.0.0.1:1",
        "DARKBLOOM_GATEWAY_LISTEN": "127.0.0.1:0",
        "DARKBLOOM_GATEWAY_READY_FILE": str(home / "ready.json"),
        **changes,
    }


@contextmanager
def process(env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "darkbloom_gateway"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


async def ready(home: Path) -> dict[str, str]:
    clock = SystemClock()
    for _ in range(SECONDS * 20):
        if (home / "ready.json").exists():
            return json.loads((home / "ready.json").read_text())["listeners"]
        await clock.sleep(0.05)
    raise AssertionError("the gateway did not become ready")


def test_a_refused_configuration_is_code_78_and_names_everything(tmp_path: Path) -> None:
    env = environment(tmp_path, DARKBLOOM_GATEWAY_NOPE="1", DARKBLOOM_GATEWAY_WORKERS="0")
    with process(env) as child:
        _, err = child.communicate(timeout=SECONDS)

    assert child.returncode == 78
    assert b"DARKBLOOM_GATEWAY_NOPE" in err
    assert b"DARKBLOOM_GATEWAY_WORKERS" in err


def test_a_taken_port_is_a_clear_message_and_code_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with process(environment(tmp_path, DARKBLOOM_GATEWAY_LISTEN=address)) as child:
            _, err = child.communicate(timeout=SECONDS)

    assert child.returncode == 1
    assert f"cannot listen on {address}".encode() in err


async def test_workers_share_a_port_and_leave_together(tmp_path: Path) -> None:
    with process(environment(tmp_path, DARKBLOOM_GATEWAY_WORKERS="2")) as child:
        listeners = await ready(tmp_path)
        async with httpx.AsyncClient() as client:
            health = await client.get(f"http://{listeners['http']}/health")
            assert health.json()["status"] == "ok"
            unready = await client.get(f"http://{listeners['http']}/readyz")
            assert unready.status_code == 503

        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=SECONDS)

    assert child.returncode == 0
    assert listeners["metrics_0"] != listeners["metrics_1"]
    assert not (tmp_path / "ready.json").exists()
