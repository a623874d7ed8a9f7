"""Going back to a moment: a real server, its archive, and another one that recovers from both."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from darkbloom_local import backups
from darkbloom_local.errors import ChildDiedError, LocalError
from darkbloom_local.process import Child
from darkbloom_local.stores import Postgres, running


@contextmanager
def archived(home: Path, store: Path) -> Iterator[tuple[Postgres, Child]]:
    server = Postgres(home, durable=False, settings=backups.archiving(store))
    server.prepare()
    backups.prepare_archive(server, store)
    child = server.launch()
    try:
        server.wait_ready(child)
        yield server, child
    finally:
        child.stop(10)


def now(connection: psycopg.Connection) -> datetime:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return datetime.fromisoformat(str(row[0])).astimezone(UTC)


def test_a_lost_server_comes_back_as_it_was_at_a_moment(tmp_path: Path) -> None:
    store = tmp_path / "backups"
    with archived(tmp_path / "first", store) as (server, child):
        with psycopg.connect(server.url, autocommit=True) as db:
            db.execute("CREATE TABLE kept (n int)")
            db.execute("INSERT INTO kept VALUES (1)")
            backups.base_backup(server, store)
            db.execute("INSERT INTO kept VALUES (2)")
            moment = now(db)
            db.execute("INSERT INTO kept VALUES (3)")
        backups.archive_now(server)
        backups.kill(child, server)

    again = backups.restore(store, tmp_path / "second", to=moment, durable=False)
    with running(again), psycopg.connect(again.url, autocommit=True) as db:
        assert db.execute("SELECT n FROM kept ORDER BY n").fetchall() == [(1,), (2,)]
        # It is a primary again, and archives on a time line of its own.
        db.execute("INSERT INTO kept VALUES (4)")
        backups.archive_now(again)
    assert {path.name[:8] for path in (store / "wal").glob("0*[!y]")} >= {"00000001", "00000002"}

    # Beyond the end of the archive nobody gets, and nobody is told that he did.
    late = backups.restore(
        store, tmp_path / "third", to=datetime(2999, 1, 1, tzinfo=UTC), durable=False
    )
    with pytest.raises(ChildDiedError), running(late):
        pass
    with pytest.raises(LocalError, match="not empty"):
        backups.restore(store, tmp_path / "second", to=moment)


def test_a_backup_that_was_touched_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "backups"
    with archived(tmp_path / "first", store) as (server, _):
        base = backups.base_backup(server, store)
    with (base / "global" / "pg_control").open("r+b") as control:
        first = control.read(1)
        control.seek(0)
        control.write(bytes([first[0] ^ 1]))
    with pytest.raises(LocalError, match="pg_control differs"):
        backups.restore(store, tmp_path / "second", to=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(LocalError, match="no base backup"):
        backups.restore(
            tmp_path / "nowhere", tmp_path / "third", to=datetime(2026, 1, 1, tzinfo=UTC)
        )
