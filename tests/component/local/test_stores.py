"""The embedded stores are the real engines, keep their data and leave nothing behind."""

import os
import signal
import stat
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from darkbloom_local.errors import LocalError
from darkbloom_local.stores import Postgres, postgres, running, socket_dir, valkey


def test_postgres_is_version_18_and_keeps_its_data(tmp_path: Path) -> None:
    with postgres(tmp_path) as url, psycopg.connect(url) as db:
        assert db.info.server_version // 10_000 == 18
        db.execute("CREATE TABLE kept (n int)")
    with postgres(tmp_path) as url, psycopg.connect(url) as db:
        assert db.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_postgres_listens_on_no_network_port(tmp_path: Path) -> None:
    with postgres(tmp_path) as url, psycopg.connect(url) as db:
        assert db.execute("SHOW listen_addresses").fetchone() == ("",)
        assert stat.S_IMODE(socket_dir(tmp_path).stat().st_mode) == 0o700


def test_valkey_is_version_9_and_listens_on_no_network_port(tmp_path: Path) -> None:
    with valkey(tmp_path) as url:
        client = redis.Redis.from_url(url)
        facts = client.info("server")
        client.close()
    assert str(facts["valkey_version"]).startswith("9.")
    assert facts["tcp_port"] == 0


def test_a_postgres_left_by_a_killed_run_is_ended_before_the_next_start(tmp_path: Path) -> None:
    store = Postgres(tmp_path)
    store.prepare()
    orphan = store.launch()
    store.wait_ready(orphan)

    with running(Postgres(tmp_path)) as second, psycopg.connect(second.url) as db:
        assert orphan.exit_code == 0
        assert db.info.backend_pid != orphan.pid


def test_a_killed_postgres_comes_back_with_committed_data(tmp_path: Path) -> None:
    store = Postgres(tmp_path)
    store.prepare()
    child = store.launch()
    store.wait_ready(child)
    with psycopg.connect(store.url) as db:
        db.execute("CREATE TABLE kept (n int)")
    os.killpg(child.pid, signal.SIGKILL)
    child.stop(5)

    with postgres(tmp_path) as url, psycopg.connect(url) as db:
        assert db.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_long_path_gets_its_sockets_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    assert len(os.fsencode(socket_dir(deep))) < 100
    with valkey(deep) as url:
        client = redis.Redis.from_url(url)
        assert client.ping()
        client.close()
    socket_dir(deep).rmdir()


def test_a_socket_directory_of_a_stranger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path)
    with pytest.raises(LocalError, match="belongs to somebody else"), valkey(tmp_path):
        pass


def test_no_process_survives_the_block(tmp_path: Path) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with postgres(tmp_path / "p"), valkey(tmp_path / "v"):
        pass
    after = {process.pid for process in psutil.Process().children(recursive=True)}
    assert after <= before
