"""What `doctor` looks at: one function per check, with what was seen and the remedy."""

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from darkbloom_provider import hardware, journal, lock, state
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.device_key import open_device_key
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.hardening import SCRUBBED
from darkbloom_provider.mac.measuring import measure_posture
from darkbloom_provider.mac.posture import Posture
from darkbloom_provider.models.store import ModelStore
from darkbloom_provider.state import AgentState

PROBE_S = 5.0
"""Bound of a network probe."""
MIN_MEMORY_GB = 8.0
MIN_FREE_GB = 2.0
_GB = 1 << 30

Result = Literal["pass", "warn", "fail"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    name: str
    """Stable (spec: provider section 3.2)."""
    result: Result
    detail: str
    fix: str = ""


def run_checks(config: ProviderConfig, environ: dict[str, str]) -> list[Check]:
    """Look at everything; nothing is changed and no check can fail the others."""
    snapshot = state.read(config.folders.state)
    running = lock.holder(config.folders.lock) is not None
    return [
        _hardware(),
        *_platform(),
        _environment(environ),
        _identity(config),
        *_models(config),
        _router(config),
        *_agent(snapshot, config.folders.terminals, running=running),
    ]


def _hardware() -> Check:
    facts = hardware.detect()
    detail = f"{facts.chip_name}, {facts.memory_gb:.0f} GB, {facts.cpu_cores_total} cores"
    if facts.memory_gb < MIN_MEMORY_GB:
        return Check(
            name="hardware",
            result="fail",
            detail=detail,
            fix=f"at least {MIN_MEMORY_GB:.0f} GB of memory are needed",
        )
    return Check(name="hardware", result="pass", detail=detail)


def _platform() -> Iterator[Check]:
    if sys.platform == "darwin":
        yield from _posture(measure_posture())
        return
    yield Check(
        name="metal gpu",
        result="warn",
        detail=f"none on {sys.platform}: models run on the CPU, slowly",
        fix="serve from an Apple-Silicon Mac to earn",
    )
    yield Check(
        name="sip",
        result="warn",
        detail=f"System Integrity Protection does not exist on {sys.platform}: trust stays `none`",
        fix="serve from an Apple-Silicon Mac for public requests",
    )


def _posture(posture: Posture) -> Iterator[Check]:
    rows = (
        ("sip", posture.sip_enabled, "System Integrity Protection", "`csrutil enable` in Recovery"),
        (
            "secure boot",
            posture.secure_boot_enabled,
            "Full Security",
            "Startup Security Utility in Recovery: choose Full Security",
        ),
        (
            "authenticated root",
            posture.authenticated_root_enabled,
            "the sealed system volume",
            "`csrutil authenticated-root enable` in Recovery",
        ),
        (
            "rdma",
            posture.rdma_disabled,
            "no RDMA over Thunderbolt",
            "`rdma_ctl disable` in Recovery",
        ),
    )
    for name, holds, what, fix in rows:
        yield Check(
            name=name,
            result="pass" if holds else "warn",
            detail=what if holds else f"not shown by the system: {what}",
            fix="" if holds else fix,
        )


def _environment(environ: dict[str, str]) -> Check:
    found = [name for name in SCRUBBED if name in environ]
    if not found:
        return Check(name="environment", result="pass", detail="nothing that injects code")
    return Check(
        name="environment",
        result="warn",
        detail=f"set here, removed by `start`: {', '.join(found)}",
        fix="unset them before you start the agent",
    )


def _identity(config: ProviderConfig) -> Check:
    path = config.folders.identity_key
    if config.keychain_group is None and not path.exists():
        return Check(
            name="active se key", result="warn", detail="no identity yet", fix="`darkbloom start`"
        )
    try:
        key = open_device_key(config)
    except (ProviderError, OSError) as error:
        fix = error.remedy if isinstance(error, ProviderError) else "check the file's owner"
        return Check(name="active se key", result="fail", detail=str(error), fix=fix)
    where = "in the Secure Enclave" if key.secure_enclave else f"software key in {path}"
    return Check(name="active se key", result="pass", detail=where)


def _models(config: ProviderConfig) -> Iterator[Check]:
    root = config.store_root
    stored = ModelStore(root).list()
    if stored:
        names = ", ".join(sorted({one.manifest.model_id for one in stored}))
        yield Check(name="local mlx models", result="pass", detail=names)
    else:
        yield Check(
            name="local mlx models",
            result="fail",
            detail=f"none in {root}",
            fix="`darkbloom models import FILE.gguf --id ORG/NAME`",
        )
    existing = next(path for path in (root, *root.parents) if path.exists())
    free = psutil.disk_usage(str(existing)).free / _GB
    yield Check(
        name="disk",
        result="pass" if free >= MIN_FREE_GB else "fail",
        detail=f"{free:.1f} GB free",
        fix="" if free >= MIN_FREE_GB else f"free {MIN_FREE_GB:.0f} GB for models",
    )


def _router(config: ProviderConfig) -> Check:
    silent = ""
    for address in config.coordinators:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=PROBE_S).close()
        except (OSError, ValueError) as error:
            silent = f"{address} does not answer ({type(error).__name__})"
            continue
        return Check(name="stream transport", result="pass", detail=f"{address} answers")
    return Check(
        name="stream transport",
        result="fail",
        detail=silent,
        fix="check the network and DARKBLOOM_PROVIDER_COORDINATOR",
    )


def _agent(snapshot: AgentState | None, terminals: Path, *, running: bool) -> Iterator[Check]:
    if not running or snapshot is None:
        yield Check(
            name="daemon", result="fail", detail="the agent does not run", fix="`darkbloom start`"
        )
        yield _usage(journal.count(terminals))
        return
    yield Check(name="daemon", result="pass", detail=f"process {snapshot.pid}")
    connected = snapshot.connection == "registered"
    yield Check(
        name="daemon connected",
        result="pass" if connected else "fail",
        detail=snapshot.connection if connected else snapshot.last_error or snapshot.connection,
        fix="" if connected else "see `stream transport`, then the agent's log",
    )
    yield from (check(snapshot) for check in _LIVE_CHECKS)


def _account(snapshot: AgentState) -> Check:
    if snapshot.account_id:
        return Check(name="account link", result="pass", detail=snapshot.account_id)
    return Check(
        name="account link",
        result="fail",
        detail="no account: paid requests are not routed here",
        fix="ask the operator of the network to link this machine's identity",
    )


def _trust(snapshot: AgentState) -> Check:
    detail = f"{snapshot.trust_level} / {snapshot.trust_status or 'unknown'}"
    why = snapshot.trust_reason
    if snapshot.trust_status == "untrusted":
        return Check(
            name="trust level",
            result="fail",
            detail=f"{detail}: {why}" if why else detail,
            fix=snapshot.trust_remedy or why or "see log",
        )
    if snapshot.admission != "public":
        admitted = snapshot.admission or "nobody"
        return Check(
            name="trust level",
            result="warn",
            detail=f"{detail}, admitted for: {admitted}{f' ({why})' if why else ''}",
            fix=snapshot.trust_remedy or "public requests need hardware evidence",
        )
    return Check(name="trust level", result="pass", detail=detail)


def _runtime(snapshot: AgentState) -> Check:
    if snapshot.runtime_verified is False or snapshot.runtime_mismatches:
        parts = ", ".join(snapshot.runtime_mismatches) or "code release"
        return Check(
            name="runtime integrity",
            result="fail",
            detail=f"not a known release: {parts}",
            fix="install a released version of the agent",
        )
    return Check(name="runtime integrity", result="pass", detail="no mismatch reported")


def _routed(snapshot: AgentState) -> Check:
    if snapshot.accepted_models:
        accepted = ", ".join(snapshot.accepted_models)
        return Check(name="model fit", result="pass", detail=f"routed: {accepted}")
    refused = "; ".join(f"{m.id}: {m.reason} {m.detail}".strip() for m in snapshot.rejected_models)
    return Check(
        name="model fit",
        result="fail",
        detail=refused or "the router accepted no model",
        fix="serve a build of the catalog, with the catalog's bytes",
    )


def _requests(snapshot: AgentState) -> Check:
    shut = [one for one in snapshot.routing if not one.eligible]
    if not shut:
        return Check(name="requests", result="pass", detail="no gate is shut for any build")
    return Check(
        name="requests",
        # A busy machine fails a gate as well; what is broken fails a check of its own.
        result="warn",
        detail="; ".join(f"{one.id}: {one.reason}, {one.evidence}" for one in shut),
        fix="; ".join(dict.fromkeys(one.remedy for one in shut if one.remedy)),
    )


def _reported(snapshot: AgentState) -> Check:
    return _usage(snapshot.unacknowledged_terminals)


def _usage(waiting: int) -> Check:
    if waiting == 0:
        return Check(name="usage reporting", result="pass", detail="everything is settled")
    return Check(
        name="usage reporting",
        result="warn",
        detail=f"{waiting} answers are not settled yet",
        fix="they are sent again with the next connection; keep the agent running",
    )


_LIVE_CHECKS: tuple[Callable[[AgentState], Check], ...] = (
    _account,
    _trust,
    _runtime,
    _routed,
    _requests,
    _reported,
)
