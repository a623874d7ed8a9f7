"""Identity, lock, state, hardening and code release: what the agent keeps and measures."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from darkbloom.router.v1.provider_link_pb2 import Terminal
from darkbloom_edge.documents import encode_document
from darkbloom_edge.release import parse_manifest, tree_hash
from darkbloom_provider import code_release, hardening, identity, lock, state
from darkbloom_provider.errors import AlreadyRunningError, IdentityError
from darkbloom_provider.hardware import chip_class
from darkbloom_provider.terminals import UnacknowledgedTerminals


def test_an_identity_is_made_once_and_stays(tmp_path):
    path = tmp_path / "identity.pem"
    first = identity.load_or_create(path)
    assert identity.load_or_create(path).public == first.public
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_identity_open_to_others_is_refused(tmp_path):
    path = tmp_path / "identity.pem"
    identity.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(IdentityError, match="closed to others"):
        identity.load_or_create(path)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\n\n"])
def test_a_damaged_identity_is_an_error_and_not_a_new_machine(tmp_path, content):
    path = tmp_path / "identity.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError):
        identity.load_or_create(path)
    assert path.read_bytes() == content


def test_only_one_agent_may_run_in_a_home(tmp_path):
    path = tmp_path / "pid"
    with lock.single_instance(path):
        assert lock.holder(path) == os.getpid()
        with pytest.raises(AlreadyRunningError, match=str(os.getpid())), lock.single_instance(path):
            pass
    assert lock.holder(path) is None


def test_a_state_file_is_private_and_survives_a_round_trip(tmp_path):
    path = tmp_path / "state.json"
    written = state.AgentState(
        pid=1,
        version="0.1.0",
        started_at="2026-01-01T00:00:00+00:00",
        updated_at="2026-01-01T00:00:00+00:00",
        coordinator="127.0.0.1:1",
        connection="registered",
        engine="scripted",
        accepted_models=("dev/x",),
    )
    state.write(path, written)
    assert state.read(path) == written
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"pid": "no"}'])
def test_a_damaged_state_file_reads_as_none(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    assert state.read(path) is None


HARDEN = """
import json, os, resource
from dataclasses import asdict
from darkbloom_provider.hardening import harden
flags = asdict(harden(os.environ))
dumpable = None
for line in open("/proc/self/status"):
    if line.startswith("NoNewPrivs"):
        flags["no_new_privs"] = line.split()[1]
flags["owner_of_proc"] = os.stat("/proc/self/environ").st_uid
flags["core"] = resource.getrlimit(resource.RLIMIT_CORE)
flags["preload"] = "LD_AUDIT" in os.environ
print(json.dumps(flags))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_hardening_flag_is_in_force_when_it_says_so():
    done = subprocess.run(
        [sys.executable, "-c", HARDEN],
        env={**os.environ, "LD_AUDIT": "", "PYTHONSTARTUP": "/nowhere"},  # noqa: TID251 - a real environment
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    flags = json.loads(done.stdout)
    assert flags["core_dumps_disabled"] is True
    assert flags["core"] == [0, 0]
    assert flags["anti_debug_enabled"] is True
    assert flags["no_new_privs"] == "1"
    assert flags["env_scrubbed"] is True
    assert flags["preload"] is False


def test_a_control_that_fails_is_reported_as_absent(monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(hardening.resource, "setrlimit", refuse)
    assert hardening._forbid_core_files() is False


def test_a_tree_hash_covers_names_contents_and_modes(tmp_path):
    def hashed():
        return tree_hash(code_release.tree_files(tmp_path))

    (tmp_path / "a.py").write_text("x = 1\n")
    first = hashed()
    assert hashed() == first

    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("noise")
    assert hashed() == first

    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = hashed()
    (tmp_path / "b.py").chmod(0o755)
    executable = hashed()
    (tmp_path / "b.py").write_text("x = 2\n")
    assert len({first, renamed, executable, hashed()}) == 4


def test_a_release_can_be_measured_where_it_does_not_run(tmp_path):
    for name in code_release.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    facts = tmp_path / "darkbloom_provider-9.8.7.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: darkbloom-provider\nVersion: 9.8.7\n"
    )
    (tmp_path / "python").write_bytes(b"an interpreter")

    measured = code_release.measure(tmp_path, tmp_path / "python")
    assert measured.version == "9.8.7"
    assert [package.name for package in measured.packages] == list(code_release.PACKAGES)
    assert all(library.installed == "" for library in measured.libraries)
    assert measured.runtime_hash != code_release.measure().runtime_hash

    manifest = measured.manifest(datetime(2026, 1, 31, tzinfo=UTC))
    assert parse_manifest(encode_document(manifest)) == manifest


def test_the_installed_agent_can_be_measured_twice_alike():
    assert code_release.measure() == code_release.measure()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Apple M4 Max", ("M4", "Max")),
        ("Apple M1", ("M1", "Base")),
        ("Apple M9 Hyper", ("Unknown", "Unknown")),
        ("AMD EPYC", ("Unknown", "Unknown")),
        ("", ("Unknown", "Unknown")),
    ],
)
def test_chips_are_told_apart_and_never_guessed(name, expected):
    assert chip_class(name) == expected


def test_terminals_wait_until_acknowledged_and_are_bounded():
    waiting = UnacknowledgedTerminals(max_entries=2)
    for name in ("a", "b", "c"):
        waiting.add(name, Terminal())
    assert [name for name, _ in waiting] == ["b", "c"]
    assert waiting.dropped == 1
    assert waiting.acknowledge("b") is True
    assert waiting.acknowledge("b") is False
    assert len(waiting) == 1


def test_home_is_closed_to_others(tmp_path):
    from darkbloom_provider.home import Home

    home = Home(root=Path(tmp_path) / "h")
    home.create()
    assert home.root.stat().st_mode & 0o777 == 0o700
