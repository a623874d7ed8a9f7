"""`darkbloom cache`: what it says, what it sets and what it removes."""

import json

import msgspec
import pytest
from darkbloom_mesh.telemetry import Metrics
from darkbloom_provider import lock, state
from darkbloom_provider.cache_metrics import COUNTS, report
from darkbloom_provider.engine.prefix.facts import CacheFacts
from darkbloom_provider.state import AgentState

FACTS = CacheFacts(
    memory_bytes=1 << 20,
    memory_max_bytes=1 << 30,
    lookups=8,
    hits=2,
    hit_tokens=512,
    disk_tokens=256,
    evicted=3,
    disk=True,
    disk_bytes=1 << 21,
    disk_files=2,
    disk_written=7,
    disk_bad=1,
    disk_dropped=4,
)


@pytest.fixture
def folder(home):
    """A cache with two blocks of one build, and its key."""
    found = home.root / "cache" / "kv3" / "0123456789ab"
    found.mkdir(parents=True)
    for name in ("a" * 32, "b" * 32):
        (found / f"{name}.dbk3").write_bytes(bytes(1 << 20))
    (found / "cache-epoch.json").write_text("{}")
    home.cache_key.write_bytes(bytes(32))
    home.cache_key.chmod(0o600)
    return found


def running(home):
    state.write(
        home.state,
        AgentState(
            pid=1,
            version="1",
            started_at="",
            updated_at="",
            coordinator="",
            connection="registered",
            engine="mlx-lm",
            prefix_cache=FACTS,
        ),
    )
    return lock.single_instance(home.lock)


def test_status_says_how_it_is_set_and_what_is_there(cli, folder):
    code, text, _ = cli("cache", "status")
    assert code == 0
    assert "Memory: an eighth of the requests' memory, at most 1 GiB" in text
    assert "Disk: off" in text
    assert "2 blocks, 2.0 MiB, 1 models" in text
    assert "no counters" in text


def test_status_of_a_running_agent_has_its_counters(cli, home, folder):
    with running(home):
        code, text, _ = cli("cache", "status")
        as_json = json.loads(cli("cache", "status", "--json")[1])
    assert code == 0
    assert "Hits: 2 of 8 prompts (25%); 512 tokens were not read again, 256 of them" in text
    assert "7 blocks written, 4 not, 1 found damaged" in text
    assert as_json["running"] is True
    assert as_json["contents"] == {"files": 2, "bytes": 2 << 20, "builds": 1}
    assert as_json["counters"] == msgspec.to_builtins(FACTS)
    assert as_json["key"] == "file"


def test_status_without_a_cache_is_no_error(cli):
    found = json.loads(cli("cache", "status", "--json")[1])
    assert found["contents"] == {"files": 0, "bytes": 0, "builds": 0}
    assert found["counters"] is None


def test_set_writes_the_file_that_the_agent_reads(cli, home):
    code, text, _ = cli("cache", "set", "--disk", "--disk-gb", "10", "--ttl-secs", "600")
    assert code == 0
    assert "cache.disk = true" in text
    cli("cache", "set", "--memory-gb", "0", "--json")
    found = json.loads(cli("cache", "status", "--json")[1])
    assert (found["disk"], found["disk_gb"], found["ttl_secs"], found["memory_gb"]) == (
        True,
        10.0,
        600.0,
        0.0,
    )
    assert "Disk: on, key in a file of mode 0600" in cli("cache", "status")[1]


@pytest.mark.parametrize(
    "wrong", [["--ttl-secs", "1801"], ["--memory-gb", "-1"], ["--disk-gb", "x"]]
)
def test_values_that_cannot_hold_are_refused(cli, home, wrong):
    code, _, errors = cli("cache", "set", *wrong)
    assert code == 64
    assert wrong[0] in errors
    assert not (home.root / "provider.toml").exists()


def test_set_without_a_setting_says_what_to_do(cli):
    code, _, errors = cli("cache", "set")
    assert code == 1
    assert "cache set --help" in errors


def test_purge_removes_every_block_and_the_key(cli, home, folder):
    code, text, _ = cli("cache", "purge")
    assert code == 0
    assert "Removed 2 blocks, 2.0 MiB." in text
    assert "never be read" in text
    assert not folder.exists()
    assert not home.cache_key.exists()
    assert json.loads(cli("cache", "purge", "--json")[1])["removed"]["files"] == 0


def test_purge_beside_a_running_agent_leaves_its_key(cli, home, folder):
    with running(home):
        found = json.loads(cli("cache", "purge", "--json")[1])
    assert found == {"removed": {"files": 2, "bytes": 2 << 20, "builds": 1}, "key_destroyed": False}
    assert home.cache_key.exists()
    assert list(folder.iterdir()) == []


class Engine:
    def prefix_cache(self):
        return FACTS


def test_the_metrics_are_sums_and_sizes_alone():
    metrics = Metrics(version="1")
    report(Engine(), metrics)
    sample = metrics.registry.get_sample_value
    assert sample("darkbloom_provider_prefix_bytes", {"tier": "memory"}) == 1 << 20
    assert sample("darkbloom_provider_prefix_bytes", {"tier": "disk"}) == 1 << 21
    for name in COUNTS:
        assert sample("darkbloom_provider_prefix", {"count": name}) == getattr(FACTS, name)
