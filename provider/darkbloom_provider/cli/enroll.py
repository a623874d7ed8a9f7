"""`darkbloom enroll`, `unenroll`: let the network ask this Mac how it is protected."""

import sys
from collections.abc import Callable
from typing import Annotated

import httpx
import typer
from darkbloom_edge.apple.enrolment import FILE_NAME, ProfileFacts, inspect_profile
from darkbloom_edge.errors import MalformedError

from darkbloom_provider.account import AccountError
from darkbloom_provider.cli import context
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.mac.measuring import Runner, measure_enrolment, run_tool
from darkbloom_provider.mac.posture import Enrolment

TIMEOUT_S = 20.0
MAX_PROFILE_BYTES = 65_536
SETTINGS = "x-apple.systempreferences:com.apple.Profiles-Settings.extension"
_OK = 200
_RIGHTS = (
    (1, "see which profiles are installed"),
    (16, "read device information, such as model and serial number"),
    (1024, "ask security questions: System Integrity Protection, Secure Boot"),
)

Fetch = Callable[[str], bytes]


class EnrolmentError(ProviderError):
    """This machine cannot be enrolled, or must not be."""


def enroll(
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Only save the profile, do not open it.")
    ] = False,
) -> None:
    """Fetch the network's management profile, say what it may do, and open it.

    The profile lets the network ask whether System Integrity Protection and Secure Boot are on, and
    nothing else. It proves nothing by itself, and you can remove it at any time.
    """
    config = context.config()
    enroll_with(config, typer.echo, open_it=not no_open)


def unenroll() -> None:
    """Open the settings in which the profile can be removed."""
    _require_mac(sys.platform)
    run_tool(("/usr/bin/open", SETTINGS))
    typer.echo("Remove the profile `Darkbloom Provider Enrollment` under Device Management.")


def enroll_with(
    config: ProviderConfig,
    say: Callable[[str], None],
    *,
    open_it: bool,
    platform: str = sys.platform,
    run: Runner = run_tool,
    fetch: Fetch | None = None,
) -> None:
    """Do what `enroll` does, with the world handed in.

    Raises:
        EnrolmentError: no Mac, managed by somebody, or a profile that does more than it should.
        AccountError: no gateway, or it does not answer.
    """
    _require_mac(platform)
    if config.gateway is None:
        raise AccountError(
            "no gateway is configured",
            "`darkbloom config set coordinator.gateway https://…`, the address of your network",
        )
    if measure_enrolment(run) is Enrolment.MANAGED:
        raise EnrolmentError(
            "this Mac is managed already, and a Mac has one manager",
            "`darkbloom unenroll` shows by whom; an employer's Mac cannot be enrolled",
        )

    profile = (fetch or fetch_profile)(config.gateway)
    try:
        facts = inspect_profile(profile)
    except MalformedError as error:
        raise EnrolmentError(
            f"the profile that came is refused: {error}", "tell the operator of the network"
        ) from None
    config.folders.create()
    path = config.folders.root / FILE_NAME
    path.write_bytes(profile)

    for line in _described(facts):
        say(line)
    say(f"Saved as {path}.")
    if open_it:
        run(("/usr/bin/open", str(path)))
        say("Install it in System Settings, General, Device Management.")


def fetch_profile(gateway: str) -> bytes:
    """Ask the gateway for a profile.

    Raises:
        AccountError: it does not answer, or has none.
    """
    url = f"{gateway.rstrip('/')}/v1/enroll"
    found = bytearray()
    try:
        with httpx.stream("POST", url, timeout=TIMEOUT_S, follow_redirects=False) as response:
            for part in response.iter_bytes():
                found += part
                if len(found) > MAX_PROFILE_BYTES:
                    raise AccountError("the gateway's profile is too large")
    except httpx.HTTPError as error:
        raise AccountError(
            f"the gateway does not answer ({type(error).__name__})",
            "check DARKBLOOM_PROVIDER_GATEWAY and the network",
        ) from None
    if response.status_code != _OK:
        raise AccountError(
            f"the gateway has no profile (status {response.status_code})",
            "this network may not manage machines; App Attest needs no enrolment",
        )

    return bytes(found)


def _require_mac(platform: str) -> None:
    if platform != "darwin":
        raise EnrolmentError(
            f"there is nothing to enrol on {platform}: only a Mac can be asked for its protections",
            "serve from an Apple-Silicon Mac for public requests; here the level stays `none`",
        )


def _described(facts: ProfileFacts) -> list[str]:
    allowed = [what for bit, what in _RIGHTS if facts.rights & bit]

    return [
        f"This profile lets {facts.host}:",
        *(f"  - {what}" for what in allowed),
        "It cannot install, change, lock or erase anything.",
    ]
