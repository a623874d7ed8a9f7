"""`darkbloom-publish`: what happens to builds and names that are published, and how far it is."""

import json
from typing import Annotated

import typer
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom.registry.v1 import catalog_pb2, rollout_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask

from darkbloom_registry.cli.desk import desk_of, show, table
from darkbloom_registry.model import BuildStatus as StatusName

BuildId = Annotated[str, typer.Argument(help="The build.")]
VersionTag = Annotated[str, typer.Argument(help="Its version.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def promote(context: typer.Context, build: BuildId, version: VersionTag) -> None:
    """Make a version the active one; promoting the one before is the rollback."""
    request = pb.PromoteVersionRequest(build=build, version=version)
    desk_of(context).write("PromoteVersion", request)


def retire(context: typer.Context, build: BuildId, version: VersionTag) -> None:
    """Revoke a version for good: who still serves it loses trust."""
    request = pb.RetireVersionRequest(build=build, version=version)
    desk_of(context).write("RetireVersion", request)


def status(
    context: typer.Context,
    build: BuildId,
    status: Annotated[
        StatusName | None, typer.Argument(help="What becomes of it; without: how far it is.")
    ] = None,
    *,
    deprecation_date: Annotated[str, typer.Option(help="YYYY-MM-DD, shown to consumers.")] = "",
    leave_behind: Annotated[
        int, typer.Option(min=0, help="Machines that may lose a build that was taken over.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Say how far machines are with a build; or change its life."""
    if status is None:
        _tell(context, build, as_json=as_json)
        return
    request = pb.SetBuildStatusRequest(
        build=build,
        status=catalog_pb2.BuildStatus.Value(f"BUILD_STATUS_{status.value.upper()}"),
        deprecation_date=deprecation_date,
        leave_behind=leave_behind,
    )
    desk_of(context).write("SetBuildStatus", request)


def update(
    context: typer.Context,
    build: BuildId,
    *,
    display_name: Annotated[str | None, typer.Option(help="As people read it.")] = None,
    description: Annotated[str | None, typer.Option(help="A few sentences.")] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="All of them; once for each.")
    ] = None,
    runtime_parameters: Annotated[
        str | None, typer.Option(help="JSON object, merged; null takes a key away.")
    ] = None,
    hugging_face_id: Annotated[str | None, typer.Option(help="`org/name` there.")] = None,
    marketplace_slug: Annotated[str | None, typer.Option(help="Its name at marketplaces.")] = None,
    deprecation_date: Annotated[str | None, typer.Option(help="YYYY-MM-DD; empty: none.")] = None,
) -> None:
    """Change what is said about a build; its bytes never change."""
    texts = {
        "display_name": display_name,
        "description": description,
        "runtime_parameters_json": runtime_parameters,
        "hugging_face_id": hugging_face_id,
        "marketplace_slug": marketplace_slug,
        "deprecation_date": deprecation_date,
    }
    given = {name: text for name, text in texts.items() if text is not None}
    wanted = catalog_pb2.Build(id=build, capabilities=capability or ())
    for name, text in given.items():
        setattr(wanted, name, text)
    paths = [*given, *(["capabilities"] if capability else [])]
    request = pb.UpdateBuildRequest(build=wanted, update_mask=FieldMask(paths=paths))
    desk_of(context).write("UpdateBuild", request)


def check(
    context: typer.Context,
    build: BuildId,
    weight_hash: Annotated[str, typer.Argument(help="Aggregate SHA-256, hex.")],
) -> None:
    """Say what a weight hash is to a build, and whether machines may serve it."""
    request = pb.CheckModelHashRequest(build=build, weight_hash=weight_hash)
    show(desk_of(context).ask("CheckModelHash", request))


def propagation(
    context: typer.Context,
    generation: Annotated[int, typer.Argument(help="0: the newest.")] = 0,
) -> None:
    """Say who goes by a generation of the catalog."""
    request = pb.GetPropagationRequest(generation=generation)
    show(desk_of(context).ask("GetPropagation", request))


def states(
    context: typer.Context,
    build: Annotated[str, typer.Argument(help="Of this build alone.")] = "",
) -> None:
    """Show how far each machine is with builds."""
    request = pb.ListModelStatesRequest(build=build, page=PageRequest(page_size=1000))
    show(desk_of(context).ask("ListModelStates", request))


def changes(context: typer.Context) -> None:
    """Show who changed what, newest first."""
    request = pb.ListChangesRequest(page=PageRequest(page_size=100))
    show(desk_of(context).ask("ListChanges", request))


def _tell(context: typer.Context, build: str, *, as_json: bool) -> None:
    found = desk_of(context).ask("GetBuildProgress", pb.GetBuildProgressRequest(build=build))
    if as_json:
        show(found)
        return
    now = found.now
    stages = {
        rollout_pb2.ModelStage.Name(one.stage).removeprefix("MODEL_STAGE_").lower(): one.machines
        for one in found.stages
    }
    failures = ", ".join(f"{one.error} {one.machines}" for one in found.failures)
    moving = ", ".join(
        f"{one.rollout_id} of {one.alias} at {one.steps[one.step]} %" for one in found.rollouts
    )
    table(
        [
            ("build", found.build),
            ("wanted to hold it", f"{now.wished}, {now.current} of them hold the active version"),
            ("hold it", now.holding),
            ("have it in memory", now.warm),
            ("loadable", "proven" if found.proven else "unknown"),
            ("last words", json.dumps(stages) if stages else "none within a day"),
            ("downloading", f"{found.bytes_done} of {found.bytes_total} bytes"),
            ("failures", failures or "none"),
            ("rollouts", moving or "none"),
        ]
    )
