"""Builds and versions as rows, each in its caller's transaction."""

import json
from collections.abc import Sequence
from typing import Any

import asyncpg
from darkbloom_mesh.postgres import Connection

from darkbloom_registry.model import (
    Build,
    BuildFacts,
    BuildStatus,
    Rendering,
    Version,
    VersionState,
)

FACTS = (
    "id, display_name, family, architecture, quantization, max_context_length, max_output_length,"
    " min_ram_gb, capabilities, required_provider_capabilities, status, description, model_type,"
    " hugging_face_id, deprecation_date, runtime_parameters_json, marketplace_slug"
)
# The manifest is up to 1 MiB and only GetManifest wants it.
_VERSION = (
    "build, version, state, aggregate_sha256, identity_sha256, total_size_bytes, file_count,"
    " register_time, sources, template_sha256, template_fixtures"
)


async def build(connection: Connection, build_id: str) -> Build | None:
    """Return a build with its versions, if there is one."""
    return next(iter(await builds(connection, "WHERE id = $1", build_id)), None)


async def builds(connection: Connection, condition: str, *arguments: Any) -> Sequence[Build]:
    """Return builds with their versions, by id; `condition` is constant SQL."""
    rows = await connection.fetch(
        f"SELECT {FACTS}, create_time FROM registry.builds {condition}",  # noqa: S608 - constants only
        *arguments,
    )
    versions: dict[str, list[Version]] = {row["id"]: [] for row in rows}
    for row in await connection.fetch(
        f"SELECT {_VERSION} FROM registry.versions WHERE build = ANY($1)"  # noqa: S608 - constants only
        " ORDER BY register_time, version",
        list(versions),
    ):
        versions[row["build"]].append(_version(row))

    builds = (
        Build(
            facts=_facts(row), create_time=row["create_time"], versions=tuple(versions[row["id"]])
        )
        for row in rows
    )
    return tuple(sorted(builds, key=lambda build: build.facts.id))


def _facts(row: asyncpg.Record) -> BuildFacts:
    values = {name.strip(): row[name.strip()] for name in FACTS.split(",")}
    values["capabilities"] = tuple(row["capabilities"])
    values["required_provider_capabilities"] = tuple(row["required_provider_capabilities"])
    values["status"] = BuildStatus(row["status"])

    return BuildFacts(**values)


def _version(row: asyncpg.Record) -> Version:
    return Version(
        version=row["version"],
        state=VersionState(row["state"]),
        aggregate_sha256=row["aggregate_sha256"],
        identity_sha256=row["identity_sha256"],
        total_size_bytes=row["total_size_bytes"],
        file_count=row["file_count"],
        register_time=row["register_time"],
        sources=tuple(row["sources"]),
        template=_template(row),
    )


def _template(row: asyncpg.Record) -> Rendering | None:
    if row["template_sha256"] is None:
        return None
    fixtures = json.loads(row["template_fixtures"])
    return Rendering(template_sha256=row["template_sha256"], fixtures=fixtures)


def template_values(template: Rendering | None) -> tuple[str | None, str | None]:
    """Return the two columns of a rendering."""
    if template is None:
        return None, None
    return template.template_sha256, json.dumps(dict(template.fixtures))
