"""Everywhere that a mesh leaves traces of itself, read as bytes."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import psycopg
import redis
from darkbloom_local.mesh import Mesh
from psycopg import sql

from tests.mesh.harness import metrics_of

ROOMS = ("attestation", "registry", "billing", "router", "gateway", "provider")


def spellings(secret: str) -> list[bytes]:
    """Return what a secret may look like: itself, hex, base64 at each alignment, its digests."""
    raw = secret.encode()
    found = [raw, raw.hex().encode(), raw[::-1]]
    for shift in range(3):
        # Whole groups of three bytes look the same wherever they stand.
        inner = raw[shift : shift + (len(raw) - shift) // 3 * 3]
        found += [base64.b64encode(inner), base64.urlsafe_b64encode(inner)]
    found += digests(raw)
    return found


def digests(data: bytes) -> list[bytes]:
    """Return unkeyed digests of content, as they might be written."""
    found = []
    for name in ("sha256", "sha1", "md5", "blake2b"):
        digest = hashlib.new(name, data)
        found += [digest.digest(), digest.hexdigest().encode(), base64.b64encode(digest.digest())]
    return found


def holding(places: Mapping[str, bytes], needles: Iterable[bytes]) -> list[str]:
    """Return the places in which any of the needles is."""
    wanted = tuple(needles)
    return [name for name, data in places.items() if any(needle in data for needle in wanted)]


def files_of(root: Path) -> dict[str, bytes]:
    """Return every file below a directory; sockets and what vanishes meanwhile are left out."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            try:
                found[str(path.relative_to(root))] = path.read_bytes()
            except FileNotFoundError:
                continue
    return found


def rows_of(mesh: Mesh) -> dict[str, bytes]:
    """Return every table of every room as text."""
    found = {}
    with psycopg.connect(mesh.database_url) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_type = 'BASE TABLE'"
            " AND table_schema NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            copy = sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(
                sql.Identifier(schema, table)
            )
            with connection.cursor().copy(copy) as rows:
                found[f"table {schema}.{table}"] = b"".join(bytes(block) for block in rows)
    return found


def keys_of(mesh: Mesh) -> dict[str, bytes]:
    """Return every key of Valkey with its value, as it would be dumped."""
    client = redis.Redis.from_url(mesh.redis_url)
    try:
        found = {}
        for key in client.scan_iter():
            fields = client.hgetall(key) if client.type(key) == b"hash" else {}
            listed = b" ".join(part for pair in fields.items() for part in pair)
            found[f"valkey {key!r}"] = key + b" " + (client.dump(key) or b"") + b" " + listed
        return found
    finally:
        client.close()


async def metrics(mesh: Mesh) -> dict[str, bytes]:
    """Return the metrics page of every process, as scrapers of both kinds get it."""
    return {
        f"metrics of {room}": (
            await metrics_of(mesh, room) + await metrics_of(mesh, room, exemplars=True)
        ).encode()
        for room in ROOMS
    }
