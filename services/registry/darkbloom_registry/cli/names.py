"""`darkbloom-publish alias`: what public names mean."""

import json
from typing import Annotated

import typer
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb

from darkbloom_registry.cli.desk import Desk, desk_of, fail, fields_of


def alias(
    context: typer.Context,
    alias: Annotated[str, typer.Argument(help="The public name.")],
    desired: Annotated[
        str, typer.Argument(help="Build that it means; for marketplaces an alias or a build.")
    ] = "",
    *,
    previous: Annotated[str, typer.Option(help="Build that serves where that cannot.")] = "",
    traffic_percent: Annotated[
        int | None,
        typer.Option(min=0, max=100, help="Share of accounts on the build; rest: before."),
    ] = None,
    display_name: Annotated[str, typer.Option(help="As people read it.")] = "",
    inactive: Annotated[bool, typer.Option(help="Hide the name.")] = False,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="The name is a build's id, which stands behind it.")
    ] = False,
    marketplace_only: Annotated[
        bool, typer.Option("--marketplace-only", help="Only the feed of marketplaces shows it.")
    ] = False,
    marketplace_slug: Annotated[str, typer.Option(help="Its name at marketplaces.")] = "",
    hugging_face_id: Annotated[str, typer.Option(help="`org/name` there.")] = "",
    delete: Annotated[bool, typer.Option("--delete", help="Take the name away.")] = False,
) -> None:
    """Point a name at a build at once; `rollout start` does it in steps."""
    desk = desk_of(context)
    if delete:
        desk.write("DeleteAlias", pb.DeleteAliasRequest(alias_id=alias))
        return
    if not desired:
        fail("a name means a build: say which, or --delete")
    if marketplace_only:
        if previous or takeover or traffic_percent is not None:
            fail("a name for marketplaces follows one model: no --previous, --takeover, share")
        name = catalog_pb2.MarketplaceAlias(
            alias_id=alias,
            display_name=display_name,
            source_model=desired,
            marketplace_slug=marketplace_slug,
            hugging_face_id=hugging_face_id,
            active=not inactive,
        )
        desk.write("UpsertMarketplaceAlias", pb.UpsertMarketplaceAliasRequest(alias=name))
        return
    if marketplace_slug or hugging_face_id:
        fail("a slug and a Hugging Face id are a build's (`update`), or go with --marketplace-only")
    wanted = catalog_pb2.Alias(
        alias_id=alias,
        display_name=display_name,
        desired_build=desired,
        previous_build=previous or (alias if takeover else ""),
        traffic_percent=traffic_percent,
        active=not inactive,
        takeover=takeover,
    )
    desk.write("UpsertAlias", pb.UpsertAliasRequest(alias=wanted))


def aliases(context: typer.Context) -> None:
    """Show every name, those for marketplaces too."""
    desk, page = desk_of(context), PageRequest(page_size=1000)
    found = fields_of(desk.ask("ListAliases", pb.ListAliasesRequest(page=page)))
    found["marketplace_aliases"] = _for_marketplaces(desk, page)
    typer.echo(json.dumps(found, indent=2))


def _for_marketplaces(desk: Desk, page: PageRequest) -> list[object]:
    request = pb.ListMarketplaceAliasesRequest(page=page)
    rows: list[object] = fields_of(desk.ask("ListMarketplaceAliases", request))["aliases"]
    return rows
