"""A MicroMDM server over HTTP.

Addresses hold device ids, so nothing of a request is logged and no error of the library leaves.
"""

import base64
import json
import logging
import re
from datetime import datetime
from typing import Any, Protocol, final

import httpx
from cryptography import x509
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import UnavailableError

TIMEOUT_S = 15.0
"""Bound of one call."""
MAX_ANSWER_BYTES = 65_536
"""Most that is read of an answer."""

_USER = "micromdm"
_UDID = re.compile(r"[0-9A-Za-z-]{8,64}\Z")


class ManagerUnavailableError(UnavailableError):
    """The device management server did not answer, or not as agreed."""


class DeviceManager(Protocol):
    """Whoever can bring a command to a device. Every call raises `ManagerUnavailableError` only."""

    async def find(self, serial: str) -> str | None:
        """Return the id of an enrolled device; None where it is not enrolled."""
        ...

    async def send(self, udid: str, command: bytes) -> None:
        """Queue a command, a property list, and wake the device."""
        ...


@final
class MicroMdm:
    """Talks to one server.

    Args:
        base_url: of the server.
        api_key: of its API.
        transport: another one for tests.
    """

    def __init__(
        self, base_url: str, api_key: Secret, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = httpx.AsyncClient(
            base_url=base_url,
            auth=(_USER, api_key.reveal()),
            timeout=TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    async def find(self, serial: str) -> str | None:
        """Return the id of an enrolled device; None where it is not enrolled."""
        answer = await self._call("POST", "/v1/devices", {"filter_serial": [serial]})
        try:
            devices: Any = json.loads(answer).get("devices") or []
            rows = [
                row["udid"]
                for row in devices
                if row.get("serial_number") == serial and row.get("enrollment_status") is True
            ]
        except (ValueError, AttributeError, KeyError, TypeError):
            raise ManagerUnavailableError("the device manager's answer has no devices") from None
        if not rows:
            return None
        if not isinstance(rows[0], str) or _UDID.match(rows[0]) is None:
            raise ManagerUnavailableError("the device manager named an impossible device")

        return rows[0]

    async def send(self, udid: str, command: bytes) -> None:
        """Queue a command, a property list, and wake the device."""
        await self._call("POST", f"/v1/commands/{udid}", command)
        await self._call("GET", f"/push/{udid}", None)

    async def push_certificate_end(self) -> datetime:
        """Return when the certificate ends with which the server wakes devices.

        Raises:
            ManagerUnavailableError: the server did not answer, or has none.
        """
        answer = await self._call("GET", "/v1/config/certificate", None)
        try:
            der = base64.b64decode(json.loads(answer)["cert"], validate=True)
            return x509.load_der_x509_certificate(der).not_valid_after_utc
        except (ValueError, KeyError, TypeError):
            raise ManagerUnavailableError("the device manager shows no certificate") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, body: dict[str, Any] | bytes | None) -> bytes:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        try:
            async with self._client.stream(method, path, content=content) as response:
                answer = bytearray()
                async for part in response.aiter_bytes():
                    answer += part
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise ManagerUnavailableError("the device manager's answer is too large")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError):
            raise ManagerUnavailableError("the device manager did not answer") from None
        if response.status_code >= 300:  # noqa: PLR2004 - anything but success
            raise ManagerUnavailableError("the device manager refused")

        return bytes(answer)
