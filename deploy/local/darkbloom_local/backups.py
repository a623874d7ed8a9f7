"""Backups of an embedded PostgreSQL, and going back to a moment.

    server = Postgres(home, settings=archiving(store))
    prepare_archive(server, store)            # before the first launch
    ...
    base = base_backup(server, store)         # while it runs; verified against its manifest
    archive_now(server)                       # what is committed now can be restored
    ...
    again = restore(store, elsewhere, to=moment)
    with running(again): ...                  # promoted at the last commit before the moment

The same steps as those of the operator in `deploy/kustomize/components/backups`, with the same
programs: a base backup, every segment of the log as it is finished, and recovery to a target time.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from darkbloom_local.errors import LocalError, NotReadyError
from darkbloom_local.process import Child
from darkbloom_local.stores import Postgres

ARCHIVE_TIMEOUT_S = 60
"""A quiet server finishes a segment at least so often: what can be lost with its disk."""
_BACKUP_S = 600.0
_ARCHIVED_S = 60
_BASE, _WAL = "base", "wal"


def archiving(store: Path, *, timeout_s: int = ARCHIVE_TIMEOUT_S) -> Mapping[str, str]:
    """Return the settings of a server that archives its log into `store`.

    A segment that is there is never overwritten: two servers that archive into one place stop. The
    same segment again is fine: PostgreSQL repeats it where it was killed before it took note.
    """
    wal = store.resolve() / _WAL
    return {
        "wal_level": "replica",
        "archive_mode": "on",
        "archive_command": f"if test -f '{wal}/%f'; then cmp -s '%p' '{wal}/%f'; "
        f"else cp '%p' '{wal}/%f.part' && sync '{wal}/%f.part' "
        f"&& mv '{wal}/%f.part' '{wal}/%f'; fi",
        "archive_timeout": f"{timeout_s}s",
    }


def prepare_archive(server: Postgres, store: Path) -> None:
    """Make the place of backups, which the server of a prepared cluster may write.

    Raises:
        LocalError: It belongs to somebody else.
    """
    for directory in (store.resolve(), store.resolve() / _WAL):
        server.own(directory)


def base_backup(server: Postgres, store: Path) -> Path:
    """Copy a running server and verify the copy; returns where it is. The older one goes.

    Raises:
        LocalError: It cannot be copied, or the copy is not what its manifest says.
    """
    base = store.resolve() / _BASE
    fresh = store.resolve() / f"{_BASE}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    server.run_tool(
        "pg_basebackup",
        f"--host={server.sockets}",
        "--username=postgres",
        f"--pgdata={fresh}",
        "--checkpoint=fast",
        "--wal-method=stream",
        "--manifest-checksums=SHA256",
        "--no-sync",
        timeout_s=_BACKUP_S,
    )
    verify(fresh)
    shutil.rmtree(base, ignore_errors=True)
    fresh.rename(base)
    return base


def verify(base: Path) -> None:
    """Compare a backup with its manifest: every file of it, and the manifest with itself.

    What `pg_verifybackup` does; the wheel's own ends in a segmentation fault.

    Raises:
        LocalError: A file is missing, was changed, or the manifest was.
    """
    try:
        text = (base / "backup_manifest").read_bytes()
        manifest = json.loads(text)
        # The last line holds the digest of everything before it.
        sealed = text[: text.rindex(b'"Manifest-Checksum"')]
        if hashlib.sha256(sealed).hexdigest() != manifest["Manifest-Checksum"]:
            raise LocalError(f"the manifest of {base} was changed")
        for entry in manifest["Files"]:
            with (base / entry["Path"]).open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
            if found != entry["Checksum"]:
                raise LocalError(f"{entry['Path']} differs from the manifest of {base}")
    except FileNotFoundError as error:
        raise LocalError(f"{error.filename} is missing in the backup") from None
    except (KeyError, ValueError):
        raise LocalError(f"the manifest of {base} cannot be read") from None


def archive_now(server: Postgres) -> None:
    """Finish the segment of the log that is being written and wait until it is archived.

    Raises:
        NotReadyError: It was not archived within a minute.
    """
    with psycopg.connect(server.url_of("postgres"), autocommit=True, connect_timeout=10) as admin:
        # Something must be in the segment, or there is nothing to switch.
        admin.execute("SELECT pg_create_restore_point('archived')")
        row = admin.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
        wanted = "" if row is None else str(row[0])
        for _ in range(_ARCHIVED_S * 20):
            row = admin.execute("SELECT last_archived_wal FROM pg_stat_archiver").fetchone()
            if row is not None and row[0] is not None and str(row[0]) >= wanted:
                return
            admin.execute("SELECT pg_sleep(0.05)")
    raise NotReadyError(f"{wanted} was not archived within {_ARCHIVED_S} s")


def restore(
    store: Path,
    directory: Path,
    *,
    to: datetime | None,
    durable: bool = True,
    archive: bool = True,
) -> Postgres:
    """Lay out a new cluster from the backup; once launched it recovers to a moment and opens.

    Nothing that was committed after the moment is in it. The archive must reach beyond the moment,
    else the server ends and says so in its log: a restore that stops short is never taken for one
    that arrived.

    Args:
        store: Where the backup and the log are.
        directory: Of the new cluster; must not hold one.
        to: The moment, with its zone; None: the last commit that was archived.
        durable: As for `Postgres`.
        archive: Archive the new server's log into the same place (its time line has other names).

    Raises:
        LocalError: There is no backup, or the directory holds a cluster.
    """
    base, wal = store.resolve() / _BASE, store.resolve() / _WAL
    if not (base / "PG_VERSION").exists():
        raise LocalError(f"there is no base backup in {store}")
    settings = {
        "restore_command": f"cp '{wal}/%f' '%p'",
        # Else it would say that it is ready before it has arrived.
        "hot_standby": "off",
    }
    if to is not None:
        settings |= {
            "recovery_target_time": to.astimezone(UTC).isoformat(),
            "recovery_target_action": "promote",
        }
    server = Postgres(
        directory,
        durable=durable,
        settings={**settings, **(archiving(store) if archive else {})},
    )
    if server.data.exists() and any(server.data.iterdir()):
        raise LocalError(f"{server.data} is not empty")
    server.prepare_empty()
    verify(base)
    shutil.copytree(base, server.data, dirs_exist_ok=True)
    (server.data / "recovery.signal").touch()
    server.own_tree(server.data)
    return server


def kill(child: Child, server: Postgres) -> None:
    """Let the server die without a word, and its disk with it: the disaster of a drill."""
    child.kill()
    shutil.rmtree(server.data, ignore_errors=True)
