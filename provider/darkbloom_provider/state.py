"""The snapshot that a running agent leaves for `status` and `doctor`.

Facts about the link and its slots, never about a request.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from darkbloom_provider.engine.interface import SlotState
from darkbloom_provider.engine.prefix.facts import CacheFacts
from darkbloom_provider.wishes import Tracked, WishState

MAX_BYTES = 1 << 20


class RejectedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A build on disk that the router will not route here, and why."""

    id: str
    reason: str
    detail: str


class RoutedModel(msgspec.Struct, frozen=True, kw_only=True):
    """Whether public requests for a build come here, and if not, why."""

    id: str
    eligible: bool
    reason: str = ""
    """Word of the first shut gate."""
    evidence: str = ""
    remedy: str = ""


class SlotView(msgspec.Struct, frozen=True, kw_only=True):
    """One resident build."""

    model: str
    state: str
    running: int
    waiting: int
    budget_used: int
    budget_max: int
    decode_tps: float | None = None


class DownloadView(msgspec.Struct, frozen=True, kw_only=True):
    """One model that the network wishes to see here, until it is served."""

    model: str
    version: str
    state: str
    """`waiting`, `downloading`, `failed` or `refused`."""
    reason: str = ""
    done_bytes: int = 0
    total_bytes: int = 0


class AgentState(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent knew when it last wrote."""

    pid: int
    version: str
    started_at: str
    updated_at: str
    coordinator: str
    connection: str
    """`loading`, `connecting`, `registered`, `draining` or `stopped`; `closed` outside the
    schedule's windows, `local` where no router is ever asked.
    """
    engine: str
    provider_id: str = ""
    account_id: str = ""
    min_version: str = ""
    """Oldest agent that the router takes; empty for any."""
    trust_level: str = "none"
    admission: str = ""
    trust_status: str = ""
    trust_reason: str = ""
    trust_remedy: str = ""
    runtime_verified: bool | None = None
    runtime_mismatches: tuple[str, ...] = ()
    accepted_models: tuple[str, ...] = ()
    rejected_models: tuple[RejectedModel, ...] = ()
    routing: tuple[RoutedModel, ...] = ()
    slots: tuple[SlotView, ...] = ()
    downloads: tuple[DownloadView, ...] = ()
    requests_served: int = 0
    tokens_generated: int = 0
    unacknowledged_terminals: int = 0
    prefix_cache: CacheFacts | None = None
    protections: dict[str, bool] = {}
    """What was put in force around this process, as measured; empty before it serves."""
    last_error: str = ""
    generation: str = ""
    """Random id of the process; it tells a new agent from an old one."""
    authorised: bool = False
    """The router has answered this process with a verdict."""
    opens_at: str | None = None
    """When the schedule opens next; set while it is closed."""


def download_views(tracked: Iterable[Tracked]) -> tuple[DownloadView, ...]:
    """Return what a snapshot says of wishes that are not fulfilled."""
    return tuple(
        DownloadView(
            model=one.wish.build,
            version=one.wish.version,
            state=one.state.value,
            reason=one.reason.value if one.reason is not None else "",
            done_bytes=one.done_bytes,
            total_bytes=one.total_bytes,
        )
        for one in tracked
        if one.state is not WishState.DONE
    )


def slot_views(slots: Iterable[SlotState]) -> tuple[SlotView, ...]:
    """Return what a snapshot says of the engine's slots."""
    return tuple(
        SlotView(
            model=slot.model,
            state=slot.state.value,
            running=slot.num_running,
            waiting=slot.num_waiting,
            budget_used=slot.active_token_budget_used,
            budget_max=slot.active_token_budget_max,
            decode_tps=slot.observed_decode_tps or None,
        )
        for slot in slots
    )


def write(path: Path, state: AgentState) -> None:
    """Replace the snapshot atomically, mode 0600."""
    scratch = path.with_suffix(".tmp")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(state), indent=2))
    scratch.replace(path)


def read(path: Path) -> AgentState | None:
    """Return the last snapshot, or None when there is none that can be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return msgspec.json.decode(data, type=AgentState) if len(data) <= MAX_BYTES else None
    except (OSError, msgspec.MsgspecError):
        return None
