"""The device management profile that a Mac's owner installs (spec/security.md §7).

Ids and topic are stable, so that enrolling again replaces in place. The base URL comes from
configuration only: built from a request's `Host` it would launder a hostile profile. Possessing
the profile proves nothing.
"""

import plistlib
import re
import uuid
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from darkbloom_edge.apple.plist import parse_plist
from darkbloom_edge.errors import MalformedError

CONTENT_TYPE = "application/x-apple-aspen-config"
"""Media type of the answer."""
FILE_NAME = "Darkbloom-Enroll.mobileconfig"
"""Name of the attachment."""
ACCESS_RIGHTS = 1 | 16 | 1024
"""Inspect profiles, read device information, ask security questions; nothing can be changed."""

_ID = "io.darkbloom.enroll"
_NAME = "Darkbloom Provider Enrollment"
_SCEP_UUID = "D01D95F9-762E-4538-A9B3-4D949D55577C"
_MDM_UUID = "4DF05DBF-6D20-41A4-8072-A51D327258E7"
_TOPIC = re.compile(
    r"com\.apple\.mgmt\.External\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE
)
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentSettings:
    """Where a Mac enrols; checked when made."""

    base_url: str
    """`https://host[:port][/path]` of the management server."""
    push_topic: str
    """`com.apple.mgmt.External.` and the id of the push certificate."""
    scep_challenge: str = field(default="micromdm", repr=False)
    """What the certificate authority asks for; it is in every profile and no secret."""

    def __post_init__(self) -> None:
        """Refuse what would enrol a Mac elsewhere.

        Raises:
            MalformedError: no https URL of a plain host and path, or no push topic.
        """
        try:
            parts = urlsplit(self.base_url)
            plain = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            raise MalformedError("is not a url", "base_url") from None
        plain = plain and parts.scheme == "https" and "@" not in parts.netloc
        exact = self.base_url == f"https://{parts.netloc}{parts.path}"
        if not plain or not exact or _PATH.match(parts.path) is None:
            raise MalformedError("must be https://host[:port][/path]", "base_url")
        if _TOPIC.match(self.push_topic) is None:
            raise MalformedError("must be com.apple.mgmt.External.<uuid>", "push_topic")
        if not self.scep_challenge.isprintable() or not self.scep_challenge:
            raise MalformedError("must be printable", "scep_challenge")


def enrolment_profile(settings: EnrolmentSettings, entropy: bytes) -> bytes:
    """Return the profile as an XML property list; the same inputs give the same bytes.

    Args:
        settings: where to enrol.
        entropy: 16 random bytes, the profile's own id.

    Raises:
        MalformedError: not 16 bytes.
    """
    if len(entropy) != len(bytes(16)):
        raise MalformedError("a profile id is made of 16 random bytes")
    profile_uuid = str(uuid.UUID(bytes=entropy, version=4)).upper()

    return plistlib.dumps(
        {
            "PayloadContent": [_scep(settings), _mdm(settings)],
            "PayloadDescription": (
                "Lets Darkbloom ask this Mac whether System Integrity Protection and Secure Boot "
                "are on. It cannot install, change, lock or erase anything."
            ),
            "PayloadDisplayName": _NAME,
            "PayloadIdentifier": _ID,
            "PayloadOrganization": "Darkbloom",
            "PayloadRemovalDisallowed": False,
            "PayloadScope": "System",
            "PayloadType": "Configuration",
            "PayloadUUID": profile_uuid,
            "PayloadVersion": 1,
        },
        sort_keys=True,
    )


def _scep(settings: EnrolmentSettings) -> dict[str, object]:
    return {
        "PayloadContent": {
            "Challenge": settings.scep_challenge,
            "Key Type": "RSA",
            "Key Usage": 5,
            "Keysize": 2048,
            "Name": "Darkbloom device identity",
            "Subject": [[["O", "Darkbloom"]], [["CN", "Darkbloom device"]]],
            "URL": f"{settings.base_url}/scep",
        },
        "PayloadDisplayName": "Device identity",
        "PayloadIdentifier": f"{_ID}.scep",
        "PayloadType": "com.apple.security.scep",
        "PayloadUUID": _SCEP_UUID,
        "PayloadVersion": 1,
    }


def _mdm(settings: EnrolmentSettings) -> dict[str, object]:
    return {
        "AccessRights": ACCESS_RIGHTS,
        "CheckInURL": f"{settings.base_url}/mdm/checkin",
        "CheckOutWhenRemoved": True,
        "IdentityCertificateUUID": _SCEP_UUID,
        "PayloadDisplayName": "Device management",
        "PayloadIdentifier": f"{_ID}.mdm",
        "PayloadType": "com.apple.mdm",
        "PayloadUUID": _MDM_UUID,
        "PayloadVersion": 1,
        "ServerURL": f"{settings.base_url}/mdm/connect",
        "SignMessage": True,
        "Topic": settings.push_topic,
    }


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """What a profile would do to the Mac that installs it."""

    host: str
    """Host of the management server."""
    rights: int
    """Bits of Apple's `AccessRights`."""


def inspect_profile(data: bytes) -> ProfileFacts:
    """Read a profile and refuse every one that does more than ours does.

    For the machine that is about to install it: whoever sends it may not be who made it.

    Raises:
        MalformedError: no profile, another payload, more rights, or servers of several hosts.
    """
    profile = parse_plist(data)
    payloads = profile.get("PayloadContent")
    if profile.get("PayloadType") != "Configuration" or not isinstance(payloads, list):
        raise MalformedError("is not a configuration profile", "profile")
    by_type = {one.get("PayloadType"): one for one in payloads if isinstance(one, dict)}
    if set(by_type) != {"com.apple.security.scep", "com.apple.mdm"} or len(payloads) != len(
        by_type
    ):
        raise MalformedError("holds other payloads than identity and management", "profile")

    mdm, scep = by_type["com.apple.mdm"], by_type["com.apple.security.scep"].get("PayloadContent")
    rights = mdm.get("AccessRights")
    if not isinstance(rights, int) or rights & ~ACCESS_RIGHTS:
        raise MalformedError("asks for more rights than it needs", "profile")
    urls = [mdm.get("ServerURL"), mdm.get("CheckInURL")]
    urls.append(scep.get("URL") if isinstance(scep, dict) else None)
    hosts = {_https_host(url) for url in urls}
    if len(hosts) != 1:
        raise MalformedError("names several servers", "profile")

    return ProfileFacts(hosts.pop(), rights)


def _https_host(url: object) -> str:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        host = parts.hostname if parts is not None and "@" not in parts.netloc else None
    except ValueError:
        host = None
    if parts is None or parts.scheme != "https" or not host:
        raise MalformedError("names no https server", "profile")

    return host
