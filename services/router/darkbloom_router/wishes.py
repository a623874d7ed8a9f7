"""What the catalog wants one connected machine to hold, and what the machine says of that."""

from functools import partial

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import LoadModelStatus, PrefetchModelStatus
from darkbloom_mesh.lane import Lane

from darkbloom_router import convert, progress
from darkbloom_router.catalog import desired_models, wish_for
from darkbloom_router.downloads import Leave
from darkbloom_router.link_parts import LinkParts
from darkbloom_router.observations import Progress
from darkbloom_router.provider import Provider


class Wishes:
    """Sends wishes when they change, and believes of a machine only what it was asked for."""

    def __init__(self, parts: LinkParts, lane: Lane) -> None:
        self._parts = parts
        self._lane = lane
        self._leave_to_fetch = Leave(parts.downloads)
        self._asked: set[str] = set()
        self.desired: frozenset[str] = frozenset()
        """Builds that the catalog wants the machine to hold, now or once it has leave."""

    def send(self, provider: Provider) -> None:
        """Send the aliases that concern a machine."""
        if not provider.connected:
            return
        fleet = self._parts.fleet
        wanted = desired_models(
            fleet.catalog, provider.candidates, progress.shares(provider, fleet.providers.values())
        )
        held = {name: one.facts.weight_hash for name, one in provider.candidates.items()}
        self.desired = frozenset(one.desired for one in wanted if one.desired)
        asked = self._leave_to_fetch.of(
            provider.stable_id,
            wanted,
            held,
            partial(wish_for, fleet.catalog),
            trusted=_trusted(provider),
        )
        if asked is None:
            return
        self._asked = {build for one in asked for build in (one.desired, one.previous) if build}
        message = convert.desired_models(asked, fleet.catalog.generation)
        self._lane.send_control(FrameKind.FRAME_KIND_DESIRED_MODELS, 0, message)

    def settle(self, provider: Provider) -> None:
        """Ask for less from now on too: a machine that connected has said what it fetches."""
        self._leave_to_fetch.settle()
        self.trust_changed(provider)

    def trust_changed(self, provider: Provider) -> None:
        """Send again where leave counts: who has no verdict does not stand in the line for it."""
        if self._parts.downloads.granted_only:
            self.send(provider)

    def loading(self, provider: Provider, payload: bytes) -> None:
        """Take a LOAD_MODEL_STATUS; raises `DecodeError`."""
        message = LoadModelStatus.FromString(payload)
        self._parts.warm.answered(provider, message)
        self._note(provider, message.model_id, progress.of_load(message))

    def fetching(self, provider: Provider, payload: bytes) -> None:
        """Take a PREFETCH_MODEL_STATUS; raises `DecodeError`."""
        message = PrefetchModelStatus.FromString(payload)
        build, found = message.model_id, progress.of_fetch(message)
        known = found is not None and build in self._parts.fleet.catalog.builds
        if found is not None and known and self._leave_to_fetch.heard(build, found.stage):
            self.send(provider)
        self._note(provider, build, found)

    def _note(self, provider: Provider, build: str, found: Progress | None) -> None:
        if found is None:
            return
        self._parts.seen.progress(
            provider.provider_id,
            build,
            found,
            machine=provider.stable_id,
            believed=_trusted(provider) and build in self._asked,
        )


def _trusted(provider: Provider) -> bool:
    return provider.verdict is not None and not provider.untrusted
