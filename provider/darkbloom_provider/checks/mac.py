"""What only a Mac has: its GPU, its protections, its manager, and who is logged in at it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from darkbloom_provider.checks.model import Check, Result, Scene
from darkbloom_provider.mac.measuring import measure_enrolment, measure_posture
from darkbloom_provider.mac.posture import Enrolment, Posture
from darkbloom_provider.mac.session import (
    Console,
    measure_auto_logout,
    measure_automatic_login,
    measure_console,
    measure_hardened,
    measure_metal,
)
from darkbloom_provider.state import AgentState
from darkbloom_provider.wording import span

MODERN_MACOS: Final = 26
_REPORT_WRONG: Final = ("posture_rejected", "posture_mismatch")
"""The router's reasons for a management report that it did not accept."""


def checks(scene: Scene) -> Iterator[Check]:
    """Look at a Mac; blocks for up to a second."""
    run = scene.tools
    yield _metal(measure_metal(run))
    yield _macos(scene.hardware.os_version)
    yield from _posture(measure_posture(run))
    yield _hardened(measure_hardened(Path(sys.executable).resolve(), run))
    yield _managed(measure_enrolment(run))
    if scene.snapshot is not None and scene.snapshot.connection == "registered":
        yield _verified(scene.snapshot)
    yield _console(measure_console(run), os.getuid())
    yield _automatic_login(measure_automatic_login(run))
    yield _auto_logout(measure_auto_logout(run))


def _metal(spoken: str | None) -> Check:
    return Check(
        name="metal gpu",
        area="machine",
        result="pass" if spoken else "warn",
        detail=spoken or "not shown by the system: models may run on the CPU, slowly",
        fix="" if spoken else "look at System Information > Graphics, and update macOS",
    )


def _macos(version: str) -> Check:
    major = version.partition(".")[0]
    modern = major.isdecimal() and int(major) >= MODERN_MACOS
    return Check(
        name="macos",
        area="machine",
        result="pass" if modern else "warn",
        detail=version or "unknown",
        fix="" if modern else f"update to macOS {MODERN_MACOS} in System Settings",
    )


def _managed(enrolment: Enrolment | None) -> Check:
    enrolled = enrolment is Enrolment.MANAGED
    return Check(
        name="mdm enrollment",
        area="machine",
        result="pass" if enrolled else "warn",
        detail="managed, so that its posture can be asked for" if enrolled else "not managed",
        fix="" if enrolled else "`darkbloom enroll`; public requests need that evidence",
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
            area="machine",
            result="pass" if holds else "warn",
            detail=what if holds else f"not shown by the system: {what}",
            fix="" if holds else fix,
        )


def _hardened(hardened: bool | None) -> Check:
    told = "signed without it" if hardened is False else "not signed, as far as the system says"
    return Check(
        name="hardened runtime",
        area="trust",
        result="pass" if hardened else "warn",
        detail="the signature forbids injected code" if hardened else f"the interpreter is {told}",
        fix="" if hardened else "install the released app: it is signed with the hardened runtime",
    )


def _verified(snapshot: AgentState) -> Check:
    """Say whether the router accepted the report of the device manager.

    A level `hardware` stands on such a report; the router names what is wrong with one as reason.
    """
    result: Result = "warn"
    fix = "`darkbloom enroll`, then keep the machine awake and online for some minutes"
    if snapshot.trust_reason in _REPORT_WRONG:
        result, detail = "fail", f"the router did not accept it: {snapshot.trust_reason}"
        fix = snapshot.trust_remedy or fix
    elif snapshot.trust_level == "hardware":
        result, detail, fix = "pass", "the router accepted the manager's report", ""
    else:
        detail = "the router has not accepted a manager's report of this machine"
    return Check(name="mdm verification", area="trust", result=result, detail=detail, fix=fix)


def _console(found: Console | None, uid: int) -> Check:
    here = found is not None and found.uid == uid != 0
    if found is None:
        detail = "the system does not say who is logged in at the screen"
    elif found.uid == 0:
        detail = "nobody is logged in at the screen: the service runs in a login session only"
    else:
        detail = "you are logged in" if here else f"{found.name} is logged in at the screen"
    return Check(
        name="console session",
        area="machine",
        result="pass" if here else "warn",
        detail=detail,
        fix="" if here else "log in at the screen as the user who serves; locking it is fine",
    )


def _automatic_login(user: str | None) -> Check:
    if user:
        detail = f"{user} is logged in when the machine starts"
        return Check(name="automatic login", area="machine", result="pass", detail=detail)
    detail = "off: after a restart nothing is served until somebody logs in"
    return Check(
        name="automatic login",
        area="machine",
        result="warn",
        detail="not shown by the system" if user is None else detail,
        fix="System Settings > Users & Groups > Automatically log in as (FileVault rules it out); "
        "or log in after each restart",
    )


def _auto_logout(idle_s: int | None) -> Check:
    if idle_s == 0:
        detail = "off: the session stays"
        return Check(name="auto-logout on idle", area="machine", result="pass", detail=detail)
    return Check(
        name="auto-logout on idle",
        area="machine",
        result="warn",
        detail="not shown by the system"
        if idle_s is None
        else f"after {span(idle_s)} without a key or a click the session ends, and the service",
        fix="System Settings > Privacy & Security > Advanced: switch off logging out when idle",
    )
