"""What can go wrong with the background service."""

from __future__ import annotations

from darkbloom_provider.errors import ProviderError


class ServiceError(ProviderError):
    """The service manager refused, or there is none."""


class StillDrainingError(ProviderError):
    """The agent goes on finishing its work after the time that the command would wait."""
