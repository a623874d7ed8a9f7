"""Updates against a real server, with small signed bundles, killed at every step."""

import io
import itertools
import json
import subprocess
import sys
import tarfile
import threading
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from darkbloom_edge.release import Bundle, sign_manifest
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider import code_release
from darkbloom_provider.update.here import platform_here
from darkbloom_provider.update.quarantine import Health, read_health, write_health
from darkbloom_provider.update.results import UpdateError, UpdateResult
from darkbloom_provider.update.source import read_keys
from darkbloom_provider.update.store import AppStore
from darkbloom_provider.update.unpacking import layout_of
from darkbloom_provider.update.updater import PACE_BYTES, PACE_S, Updater

OLD, NEW = "1.0.0", "1.1.0"
STEPS = ["download", "unpack", "verify", "publish", "swap", "done"]
KILLED_AT = """
import os, signal, sys
from pathlib import Path
from darkbloom_provider.update.source import read_keys
from darkbloom_provider.update.here import platform_here
from darkbloom_provider.update.store import AppStore
from darkbloom_provider.update.updater import Updater

root, gateway, keys, at = sys.argv[1:]

def say(step):
    if step == at:
        os.kill(os.getpid(), signal.SIGKILL)

updater = Updater(AppStore(Path(root)), current="1.0.0", platform=platform_here(),
                  keys=read_keys(Path(keys)), gateway=gateway, plain=True, say=say)
updater.install(updater.check().release)
"""


def tree(root: Path, version: str, *, runs: bool = True, computes: bool = True) -> Path:
    """Make a small installation."""
    python = root / "bin" / "python3"
    site = root / "lib" / "python3.11" / "site-packages"
    python.parent.mkdir(parents=True)
    smoke = "" if computes else 'case "$*" in *runtime-smoke) exit 1;; esac\n'
    python.write_text(f"#!/bin/sh\n{smoke}echo {version if runs else 'broken'}\n")
    python.chmod(0o755)
    for package in code_release.PACKAGES:
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").write_text(f"# {version}\n")
    info = site / f"darkbloom_provider-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: darkbloom-provider\nVersion: {version}\n"
    )
    return root


def packed(root: Path) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, path.relative_to(root), recursive=False)
    return data.getvalue()


class Network:
    """A gateway and a bundle store in one."""

    def __init__(self, tmp_path: Path) -> None:
        self.signer = Ed25519Signer.generate()
        self.keys = tmp_path / "keys.json"
        self.keys.write_text(
            json.dumps({self.signer.key_id: b64encode(self.signer.public).decode()})
        )
        self.answer: bytes | None = None
        self.archive = b""
        self.asked: list[str] = []
        network = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                network.asked.append(self.path)
                bundle = self.path == "/bundle"
                body = network.archive if bundle else network.answer
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write(body or b"{}")

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def release(self, root: Path, archive: bytes, **changes: object) -> None:
        """Sign what `root` holds and serve `archive` for it."""
        layout = layout_of(root)
        measured = code_release.measure(layout.site, layout.python)
        bundle = Bundle(
            url=f"{self.url}/bundle",
            sha256=code_release.hashlib.sha256(archive).hexdigest(),
            size_bytes=len(archive),
        )
        manifest = replace(measured, platform=platform_here()).manifest(
            datetime(2026, 1, 1, tzinfo=UTC), bundle
        )
        document, signature = sign_manifest(manifest, self.signer)
        fields = {"document": document, "signature": signature, **changes}
        signed = {name: b64encode(value).decode() for name, value in fields.items()}
        self.archive = archive
        self.answer = json.dumps(
            {"version": NEW, "manifest": {**signed, "key_id": self.signer.key_id}}
        ).encode()


@pytest.fixture
def network(tmp_path):
    made = Network(tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(tmp_path):
    found = AppStore(tmp_path / "app")
    with found.locked():
        found.publish(tree(found.staging / "tree", OLD), OLD)
        found.activate(OLD)
    return found


def updater(store: AppStore, network: Network, **more: object) -> Updater:
    return Updater(
        store,
        current=OLD,
        platform=platform_here(),
        keys=read_keys(network.keys),
        gateway=network.url,
        plain=True,
        **more,
    )


def works(store: AppStore) -> str:
    """Run what is in use and return what it says."""
    python = store.folder(store.current or "none") / "bin" / "python3"
    return subprocess.run([python], capture_output=True, text=True, check=True).stdout.strip()


def test_a_signed_release_is_installed_and_the_old_one_stays_to_return_to(tmp_path, network, store):
    root = tree(tmp_path / "new", NEW)
    network.release(root, packed(root))
    steps: list[str] = []
    new = updater(store, network, say=steps.append)

    found = new.check()
    assert found.result is UpdateResult.AVAILABLE
    new.install(found.release)

    assert steps == ["check", *STEPS]
    assert (store.current, store.proven) == (NEW, OLD)
    assert works(store) == NEW
    assert list((tmp_path / "app").glob("staging/*")) == []
    assert store.roll_back() == OLD
    assert works(store) == OLD


def test_a_machine_asks_with_one_mark_for_ever_and_without_one_where_it_can_keep_none(
    tmp_path, network, store
):
    drawn = iter([b"\1" * 8, b"\2" * 8])
    for _ in range(2):
        updater(store, network, entropy=lambda _size: next(drawn)).check()
    asked = [path.partition("ring=")[2] for path in network.asked]
    assert asked == ["01" * 8] * 2

    store.mark.write_text("no mark")
    assert updater(store, network, entropy=lambda _size: next(drawn)).check()
    assert network.asked[-1].endswith("ring=" + "02" * 8)
    (tmp_path / "file").touch()
    nowhere = AppStore(tmp_path / "file")
    updater(nowhere, network).check()
    assert "ring=" not in network.asked[-1]


class Hasty(SystemClock):
    """A minute passes between any two looks."""

    def __init__(self) -> None:
        self._looks = itertools.count()

    def monotonic(self) -> float:
        return next(self._looks) * PACE_S


def test_a_trickle_is_no_download_and_leaves_what_is_installed(tmp_path, network, store):
    root = tree(tmp_path / "new", NEW)
    archive = packed(root)
    assert len(archive) < PACE_BYTES
    network.release(root, archive)
    new = updater(store, network, clock=Hasty())

    with pytest.raises(UpdateError, match="too slow") as refused:
        new.install(new.check().release)

    assert refused.value.result is UpdateResult.DOWNLOAD_FAILED
    assert store.current == OLD
    with store.locked():
        pass


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_what_is_installed_works_and_the_next_try_succeeds(
    tmp_path, network, store, step
):
    root = tree(tmp_path / "new", NEW)
    network.release(root, packed(root))
    child = subprocess.run(
        [sys.executable, "-c", KILLED_AT, tmp_path / "app", network.url, network.keys, step],
        timeout=60,
        check=False,
    )

    assert child.returncode == -9
    assert works(store) == (NEW if step == "done" else OLD)
    again = updater(store, network)
    again.install(again.check().release)
    assert works(store) == NEW
    assert store.proven == OLD


def test_nothing_newer_is_nothing_to_do(tmp_path, network, store):
    assert updater(store, network).check().result is UpdateResult.UP_TO_DATE
    root = tree(tmp_path / "old", "0.9.0")
    network.release(root, packed(root))
    assert updater(store, network).check().result is UpdateResult.UP_TO_DATE


def test_a_version_that_kept_dying_is_barred_until_its_owner_insists(tmp_path, network, store):
    root = tree(tmp_path / "new", NEW)
    network.release(root, packed(root))
    write_health(store.state, Health(quarantined=(NEW,)))
    new = updater(store, network)

    assert new.check().result is UpdateResult.QUARANTINED
    insisted = new.check(override_quarantine=True)
    assert insisted.result is UpdateResult.AVAILABLE
    new.install(insisted.release)
    assert read_health(store.state).quarantined == ()


@pytest.mark.parametrize("forged", ["signature", "document"])
def test_what_no_pinned_key_has_signed_is_refused_before_it_is_downloaded(
    tmp_path, network, store, forged
):
    root = tree(tmp_path / "new", NEW)
    other = b"\x01" * 64 if forged == "signature" else b"{}"
    network.release(root, packed(root), **{forged: other})
    with pytest.raises(UpdateError) as caught:
        updater(store, network).check()
    assert caught.value.result is UpdateResult.HASH_MISMATCH


def test_other_bytes_than_those_that_were_signed_are_refused(tmp_path, network, store):
    root = tree(tmp_path / "new", NEW)
    archive = packed(root)
    for other in (
        archive[:-1],
        archive + b"x",
        archive[:50] + bytes([archive[50] ^ 1]) + archive[51:],
    ):
        network.release(root, archive)
        network.archive = other
        new = updater(store, network)
        with pytest.raises(UpdateError) as caught:
            new.install(new.check().release)
        assert caught.value.result is UpdateResult.HASH_MISMATCH
    assert works(store) == OLD


def test_a_signed_archive_of_another_tree_does_not_run_or_leads_out_is_refused(
    tmp_path, network, store
):
    root = tree(tmp_path / "new", NEW)
    other = tree(tmp_path / "other", NEW)
    (other / "lib/python3.11/site-packages/darkbloom_mesh/extra.py").write_text("x")
    broken = tree(tmp_path / "broken", NEW, runs=False)
    idle = tree(tmp_path / "idle", NEW, computes=False)
    outside = io.BytesIO()
    with tarfile.open(fileobj=outside, mode="w:gz") as tar:
        escaping = tarfile.TarInfo("../escaped")
        escaping.size = 1
        tar.addfile(escaping, io.BytesIO(b"x"))
    for measured, archive, result in (
        (root, packed(other), UpdateResult.HASH_MISMATCH),
        (broken, packed(broken), UpdateResult.REPLACE_FAILED),
        (idle, packed(idle), UpdateResult.REPLACE_FAILED),
        (root, outside.getvalue(), UpdateResult.REPLACE_FAILED),
        (root, b"no archive", UpdateResult.REPLACE_FAILED),
    ):
        network.release(measured, archive)
        new = updater(store, network)
        with pytest.raises(UpdateError) as caught:
            new.install(new.check().release)
        assert caught.value.result is result
    assert works(store) == OLD
    assert not (tmp_path / "app" / "escaped").exists()


def test_a_network_that_is_away_or_talks_nonsense_is_told_as_that(tmp_path, network, store):
    network.answer = b"["
    with pytest.raises(UpdateError) as caught:
        updater(store, network).check()
    assert caught.value.result is UpdateResult.DOWNLOAD_FAILED
    with pytest.raises(UpdateError, match="no release key is pinned"):
        read_keys(None)


def test_update_says_in_text_and_json_what_there_is(cli, home, network, tmp_path, monkeypatch):
    monkeypatch.setenv("DARKBLOOM_PROVIDER_GATEWAY", network.url)
    code, _, err = cli("update", "--check-only")
    assert code == 1
    assert "no release key is pinned" in err
    monkeypatch.setenv("DARKBLOOM_PROVIDER_RELEASE_KEYS_FILE", str(network.keys))
    code, out, _ = cli("update", "--check-only")
    assert (code, "is the newest version" in out) == (0, True)

    root = tree(tmp_path / "new", "99.1.0")
    network.release(root, packed(root))
    code, out, _ = cli("update", "--check-only", "--json")
    assert (code, json.loads(out)["result"]) == (0, "available")
    assert json.loads(out)["available"] == "99.1.0"
    # This program is not one that it installed, so it leaves it alone.
    code, out, _ = cli("update", "--json")
    assert (code, json.loads(out)["result"]) == (1, "replaceFailed")


def test_autoupdate_is_kept_in_the_file(cli, home):
    assert cli("autoupdate", "status")[1] == "Updates are installed by themselves.\n"
    assert cli("autoupdate", "off", "--json")[1] == '{"auto_update":false}\n'
    assert cli("autoupdate", "status")[1] == "Updates wait for your word.\n"
    assert cli("autoupdate", "enable")[0] == 0
    code, _, err = cli("autoupdate", "perhaps")
    assert (code, "enable, disable or status" in err) == (1, True)
