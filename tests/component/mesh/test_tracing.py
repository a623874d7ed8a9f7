"""What leaves for the collector, seen by a collector."""

import asyncio
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CANARY = b"the patient said"
TRACED = """
import sys
from darkbloom_mesh import tracing
from darkbloom_mesh.telemetry import Metrics

traces = tracing.Tracing("thing", "1.2", sys.argv[1], share=0.05, metrics=Metrics(version="1"))
tracing.adopt({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
try:
    with tracing.span("router.select", candidates=3):
        raise ValueError("the patient said")
except ValueError:
    pass
with tracing.joint("billing.settle", ["", "00-" + "5a" * 16 + "-b7ad6b7169203331-01"]):
    pass
traces.close()
"""


LOST = """
import sys
import time
from darkbloom_mesh import telemetry, tracing
from prometheus_client import generate_latest

metrics = telemetry.Metrics(version="1")
traces = tracing.Tracing("thing", "1.2", sys.argv[1], share=1.0, metrics=metrics)
slowest = 0.0
for _ in range(5000):
    begun = time.perf_counter()
    with tracing.span("router.select"):
        pass
    slowest = max(slowest, time.perf_counter() - begun)
traces.close()
pages = generate_latest(metrics.registry).decode().splitlines()
shown = {line.split()[0]: float(line.split()[1]) for line in pages if line.startswith("darkbloom_")}
print(shown['darkbloom_telemetry_sink_dropped_total{sink="traces"}'])
print(shown['darkbloom_telemetry_sink_depth{sink="traces"}'])
print(shown.get('darkbloom_telemetry_sink_written_total{sink="traces"}', 0.0))
print(slowest)
"""


class Collector(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    bodies: list[bytes]

    def do_POST(self) -> None:
        """Accept anything."""
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


async def test_a_collector_that_is_away_costs_counted_spans_and_stops_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # It takes connections, and never answers.
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", LOST, endpoint, stdout=-1, stderr=-1
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    assert process.returncode == 0, err
    dropped, waiting, written, slowest = map(float, out.split())
    assert (dropped, waiting, written) == (5000, 0, 0)
    assert slowest < 2.0


async def test_a_failed_span_says_the_type_of_the_error_and_never_its_text() -> None:
    kept: list[bytes] = []
    handler = type("Kept", (Collector,), {"bodies": kept})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", TRACED, endpoint, stdout=-1, stderr=-1
        )
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        server.shutdown()
        serving.join()
    assert process.returncode == 0, err
    posted = b"".join(kept)
    assert b"router.select" in posted
    assert b"ValueError" in posted
    assert bytes.fromhex("0af7651916cd43dd8448eb211c80319c") in posted
    assert posted.count(b"billing.settle") == 1
    assert bytes.fromhex("5a" * 16) in posted
    assert CANARY not in posted + out + err
