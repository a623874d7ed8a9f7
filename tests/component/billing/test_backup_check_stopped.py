"""`backup-check` as a process beside a Kubernetes that is played: told to stop, and left alone."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import certifi
import httpx
import pytest
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.recovery.checking import MAX_BEHIND
from darkbloom_billing.recovery.command import BackupCheck, Restored
from darkbloom_billing.recovery.stopping import STOPPED
from darkbloom_mesh.config import Secret
from darkbloom_mesh.testing import FakeClock

from tests.unit.billing.test_scratch import Kubernetes


@contextmanager
def served(kubernetes: Kubernetes, waited_for: Event) -> Iterator[str]:
    """Serve the fake; the event is set once somebody has looked at the scratch cluster."""

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            answer = kubernetes(httpx.Request(self.command, f"http://k{self.path}", content=body))
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)
            if kubernetes.asked:
                waited_for.set()

        do_GET = do_POST = do_DELETE = do  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            """Keep the output of the tests clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_bytes(Path(certifi.where()).read_bytes())
    return tmp_path


@contextmanager
def checking(api: str, credentials: Path) -> Iterator["subprocess.Popen[str]"]:
    ours = os.environ.copy()  # noqa: TID251 - what a child inherits, without what is meant for us
    kept = {name: value for name, value in ours.items() if not name.startswith("DARKBLOOM")}
    arguments = ["backup-check", "--cluster=postgres", f"--api={api}", f"--heads={credentials}"]
    child = subprocess.Popen(
        [sys.executable, "-m", "darkbloom_billing", *arguments, f"--credentials={credentials}"],
        env={
            **kept,
            "DATABASE_URL": "postgresql://b@postgres-rw/d",
            "DARKBLOOM_ENV": "development",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=30)


def test_sigterm_deletes_what_is_being_restored_and_does_not_wait_for_it(credentials: Path) -> None:
    kubernetes, waited_for = Kubernetes(ready_after=10**6, lingers=True), Event()
    with served(kubernetes, waited_for) as api, checking(api, credentials) as child:
        assert waited_for.wait(60), "nothing was restored"
        child.send_signal(signal.SIGTERM)
        # Within the grace of its pod, though what was deleted never goes.
        out, err = child.communicate(timeout=60)
    assert kubernetes.said == ["POST", "DELETE backup-check"]
    assert child.returncode == STOPPED, err
    told = json.loads(out.splitlines()[-1])
    assert told == {"sound": False, "problems": ["not_checked"], "failed": "stopped"}


async def test_what_could_not_be_deleted_is_named_beside_what_was_found(credentials: Path) -> None:
    kubernetes = Kubernetes(ready_after=0, refuse="DELETE")
    # What was restored cannot even be asked, and is named all the same.
    url = Secret("postgresql://b@postgres-rw/d?sslmode=bogus")
    with served(kubernetes, Event()) as api:
        told = await BackupCheck(
            config=BillingConfig(environment="development", database_url=url),
            clock=FakeClock(),
            heads=credentials,
            record=None,
            max_behind=MAX_BEHIND,
            restored=Restored(
                address=api,
                credentials=credentials,
                namespace="darkbloom",
                live="postgres",
                scratch="backup-check",
                wait_s=60,
            ),
        ).run()
    assert kubernetes.said == ["POST", "DELETE backup-check"]
    assert (told["failed"], told["not_deleted"]) == ("database does not answer", "backup-check")
