"""One process per worker behind one socket; with a single worker, this process itself."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

from darkbloom_mesh.serve import run

from darkbloom_gateway.app import serve
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.listener import bind

POLL_S = 0.2


def start(config: GatewayConfig) -> int:
    """Bind the public address, run the workers, and return the exit code."""
    try:
        public = bind(config)
    except OSError as error:
        sys.stderr.write(f"gateway: cannot listen on {config.listen} ({error.strerror})\n")
        return 1
    with public:
        if config.workers == 1:
            return run(lambda: serve(config, public))
        return _supervise(config, public)


def _work(config: GatewayConfig, public: socket.socket, number: int) -> None:
    """Run one worker; the body of a spawned process."""
    sys.exit(run(lambda: serve(config, public, number=number)))


def _supervise(config: GatewayConfig, public: socket.socket) -> int:
    """Run workers until told to stop, or until one of them ends by itself."""
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for worker in workers:
            if worker.is_alive():
                worker.terminate()

    with tempfile.TemporaryDirectory(prefix="darkbloom-gateway-") as home:
        files = [Path(home) / f"{number}.json" for number in range(config.workers)]
        context = multiprocessing.get_context("spawn")
        workers: list[SpawnProcess] = [
            context.Process(
                target=_work,
                args=(_own(config, number, file), public, number),
                name=f"gateway-{number}",
            )
            for number, file in enumerate(files)
        ]
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        for worker in workers:
            worker.start()

        said_ready = config.ready_file is None
        while not stopping and all(worker.is_alive() for worker in workers):
            if not said_ready and all(file.exists() for file in files):
                _say_ready(config, files)
                said_ready = True
            wait([worker.sentinel for worker in workers], timeout=POLL_S)

        stop(signal.SIGTERM, None)
        for worker in workers:
            worker.join()
    if config.ready_file is not None:
        config.ready_file.unlink(missing_ok=True)
    return max(abs(worker.exitcode or 0) for worker in workers)


def _own(config: GatewayConfig, number: int, ready_file: Path) -> GatewayConfig:
    """Return a worker's configuration: its own metrics port and ready file."""
    host, _, port = config.metrics_listen.rpartition(":")
    own_port = int(port) + number if int(port) else 0
    return replace(
        config,
        workers=1,
        metrics_listen=f"{host}:{own_port}",
        health_listen=config.health_listen if number == 0 else None,
        ready_file=ready_file,
    )


def _say_ready(config: GatewayConfig, files: list[Path]) -> None:
    if config.ready_file is None:
        return
    said = [json.loads(file.read_text())["listeners"] for file in files]
    metrics = {f"metrics_{number}": row["metrics"] for number, row in enumerate(said)}
    listeners = {"http": said[0]["http"], "metrics": said[0]["metrics"], **metrics}
    staged = config.ready_file.with_suffix(f".{os.getpid()}")
    staged.write_text(json.dumps({"pid": os.getpid(), "listeners": listeners}))
    staged.replace(config.ready_file)
