"""`darkbloom-publish rollout …`: start, look, pause, resume, revert."""

import secrets
from datetime import timedelta
from typing import Annotated

import typer
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom.registry.v1 import rollout_pb2

from darkbloom_registry.cli.desk import Desk, desk_of, in_words, show, table

rollout = typer.Typer(no_args_is_help=True, help="Move a name to another build in steps.")
RolloutId = Annotated[str, typer.Argument(help="`roll_…`, as `rollout list` shows it.")]
Reason = Annotated[str, typer.Option(help="For the record.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@rollout.command("start")
def start(
    context: typer.Context,
    alias: Annotated[str, typer.Argument(help="The public name.")],
    to_build: Annotated[str, typer.Argument(help="Where it goes.")],
    *,
    step: Annotated[
        list[int] | None, typer.Option(help="Percent, once for each step; default 1 10 50 100.")
    ] = None,
    min_requests: Annotated[int, typer.Option(help="Attempts that pass a step.")] = 50,
    soak_s: Annotated[float, typer.Option(help="Seconds that a step lasts at least.")] = 600,
    min_success_percent: Annotated[int, typer.Option(help="Of the attempts.")] = 95,
    max_load_failures: Annotated[int, typer.Option(help="Let pass in a step.")] = 0,
    max_untrusted: Annotated[int, typer.Option(help="Let pass in a step.")] = 0,
    max_ttft_p95_s: Annotated[
        float | None, typer.Option(help="Seconds to the first token; unset: not looked at.")
    ] = None,
    request_id: Annotated[str, typer.Option(help="Makes a repeated call one rollout.")] = "",
) -> None:
    """Begin at the first step."""
    gates = rollout_pb2.RolloutGates(
        min_requests=min_requests,
        min_success_percent=min_success_percent,
        max_load_failures=max_load_failures,
        max_untrusted=max_untrusted,
    )
    gates.soak.FromTimedelta(timedelta(seconds=soak_s))
    if max_ttft_p95_s is not None:
        gates.max_ttft_p95.FromTimedelta(timedelta(seconds=max_ttft_p95_s))
    request = pb.StartRolloutRequest(
        request_id=request_id or secrets.token_hex(16),
        alias=alias,
        to_build=to_build,
        steps=step or (),
        gates=gates,
    )
    _done(desk_of(context), desk_of(context).ask("StartRollout", request))


@rollout.command("show")
def show_one(context: typer.Context, rollout_id: RolloutId, *, as_json: AsJson = False) -> None:
    """Say where it stands, what was seen, and why."""
    request = pb.GetRolloutRequest(rollout_id=rollout_id)
    found = desk_of(context).ask("GetRollout", request).rollout
    if as_json:
        show(found)
    else:
        _tell(found)


@rollout.command("list")
def list_all(
    context: typer.Context,
    alias: Annotated[str, typer.Option(help="Of this name alone.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """List the newest rollouts."""
    request = pb.ListRolloutsRequest(alias=alias, page=PageRequest(page_size=50))
    found = desk_of(context).ask("ListRollouts", request)
    if as_json:
        show(found)
        return
    rows = [
        (one.rollout_id, one.alias, _state(one), _step(one), one.to_build, one.reason)
        for one in found.rollouts
    ]
    table([("ROLLOUT", "ALIAS", "STATE", "STEP", "TO", "REASON"), *rows])


@rollout.command("pause")
def pause(context: typer.Context, rollout_id: RolloutId, reason: Reason = "") -> None:
    """Stay at this step; gates still turn it back."""
    _change(context, rollout_id, pb.ROLLOUT_ACTION_PAUSE, reason)


@rollout.command("resume")
def resume(context: typer.Context, rollout_id: RolloutId, reason: Reason = "") -> None:
    """Go on."""
    _change(context, rollout_id, pb.ROLLOUT_ACTION_RESUME, reason)


@rollout.command("revert")
def revert(context: typer.Context, rollout_id: RolloutId, reason: Reason = "") -> None:
    """Point the name back to where it came from, now."""
    _change(context, rollout_id, pb.ROLLOUT_ACTION_REVERT, reason)


def _change(
    context: typer.Context, rollout_id: str, action: pb.RolloutAction.ValueType, reason: str
) -> None:
    request = pb.ChangeRolloutRequest(rollout_id=rollout_id, action=action, reason=reason)
    _done(desk_of(context), desk_of(context).ask("ChangeRollout", request))


def _done(desk: Desk, answer: pb.StartRolloutResponse | pb.ChangeRolloutResponse) -> None:
    _tell(answer.rollout)
    typer.echo(f"catalog        {in_words(desk.settle(answer.generation))}")


def _tell(found: rollout_pb2.Rollout) -> None:
    counts = found.counts
    p95 = counts.ttft_p95.ToTimedelta().total_seconds() if counts.HasField("ttft_p95") else None
    table(
        [
            ("rollout", found.rollout_id),
            ("alias", found.alias),
            ("from", found.from_build),
            ("to", found.to_build),
            ("state", _state(found)),
            ("step", _step(found)),
            ("reason", found.reason),
            ("attempts", f"{counts.successes} succeeded, {counts.failures} failed"),
            ("ttft p95", "unknown" if p95 is None else f"up to {p95:g} s"),
            ("load failures", counts.load_failures),
            ("untrusted", counts.untrusted),
            ("started by", found.actor or "unknown"),
        ]
    )


def _state(found: rollout_pb2.Rollout) -> str:
    return rollout_pb2.RolloutState.Name(found.state).removeprefix("ROLLOUT_STATE_").lower()


def _step(found: rollout_pb2.Rollout) -> str:
    return f"{found.step + 1}/{len(found.steps)} ({found.steps[found.step]} %)"
