"""Joins the local endpoint to a running agent."""

from __future__ import annotations

import secrets
from typing import final

import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_provider.home import Home
from darkbloom_provider.local.app import LocalApp
from darkbloom_provider.local.errors import LocalStartError, not_serving
from darkbloom_provider.local.key import read_or_make
from darkbloom_provider.local.server import LocalServer, bind
from darkbloom_provider.options import LocalEndpoint
from darkbloom_provider.shift import Kitchen
from darkbloom_provider.shifts import Shifts

_ID_BYTES = 12
_log = structlog.get_logger()


@final
class CurrentPlace:
    """The kitchen of the shift that serves now; see `app.Place`."""

    def __init__(self, shifts: Shifts) -> None:
        self._shifts = shifts

    def kitchen(self) -> Kitchen:
        """Return it, or say why there is none."""
        shifts = self._shifts
        if shifts.current is None:
            if shifts.opens_at is not None:
                raise not_serving(f"closed by the schedule until {shifts.opens_at.isoformat()}")
            raise not_serving("the models are being loaded")
        if shifts.current.draining or shifts.leaving.is_set():
            raise not_serving("this machine is draining")
        return shifts.current.kitchen


def open_local(
    endpoint: LocalEndpoint, home: Home, shifts: Shifts, clock: Clock, *, version: str, alone: bool
) -> LocalServer | None:
    """Bind the endpoint and return its server.

    Beside the network a taken port is no reason not to earn: it is logged, and None returned.

    Raises:
        LocalStartError: it cannot be opened, and it is all that was asked for; or its key is not
            safe.
    """
    key = read_or_make(home.local_key) if endpoint.authenticated else None
    try:
        listener = bind(endpoint)
    except LocalStartError as error:
        if alone or not endpoint.authenticated:
            raise
        _log.error("local_endpoint_unavailable", port=endpoint.port, reason=error.message)
        return None
    app = LocalApp(
        CurrentPlace(shifts),
        key,
        clock,
        version=version,
        new_id=lambda: secrets.token_hex(_ID_BYTES),
    )
    return LocalServer(listener, app, key, home.local_record, clock, version=version)
