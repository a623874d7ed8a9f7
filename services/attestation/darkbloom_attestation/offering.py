"""Offering releases ring by ring, and holding one whose machines do worse than the rest."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, final

import structlog
from darkbloom_edge.rings import STEPS
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, StoreUnavailableError

from darkbloom_attestation.errors import OfferError, ReleaseNotFoundError
from darkbloom_attestation.figures import WATCHED, WINDOW, Compared, Figures, why_held
from darkbloom_attestation.model import CodeRelease, Offer, OfferAction, OfferChange
from darkbloom_attestation.ports import Store, Transaction

ITSELF: Final = "attestation"
"""Who holds an offer when no person does."""
LOOK_S: Final = 60.0
STEP: Final = timedelta(days=1)
"""How long a ring is watched before the next one, unless a person insists."""
_NUMBERS = re.compile(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(-.+)?\Z", re.ASCII)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where an offer stands."""

    release: CodeRelease
    ring: Figures
    rest: Figures
    changes: Sequence[OfferChange]


@final
class Offering:
    """Moves offers from ring to ring; each change is in the record.

    Args:
        store: where releases and evidence are.
        clock: time.
        held: told at each look how many active releases are held.
    """

    def __init__(
        self, store: Store, clock: Clock, *, held: Callable[[int], None] = lambda _count: None
    ) -> None:
        self._store = store
        self._clock = clock
        self._held = held

    async def progress(self, code_release: str) -> Progress:
        """Return where an offer stands.

        Raises:
            ReleaseNotFoundError: no such release.
        """
        release = await self._store.release(code_release)
        if release is None:
            raise ReleaseNotFoundError("no such code release")
        active = await self._store.list_releases(include_inactive=False)
        ring, rest = await self._figures(release, active)
        changes = await self._store.offer_changes(code_release)
        return Progress(release=release, ring=ring, rest=rest, changes=changes)

    async def widen(
        self, code_release: str, *, actor: str, reason: str = "", force: bool = False
    ) -> CodeRelease:
        """Offer a release to the next ring.

        Raises:
            ReleaseNotFoundError: no such release.
            OfferError: it is not active, is held, is offered to all, or is too young.
            InvalidArgumentError: it is forced without a reason.
        """
        if force:
            _demand(reason)
        seen = await self.progress(code_release)
        async with self._store.transaction() as change:
            known = await _locked(change, code_release)
            offer = known.offer
            if offer.held:
                raise OfferError(f"it is held: {offer.held}; resume it first")
            if offer.percent >= STEPS[-1]:
                raise OfferError("it is offered to all")
            if not force:
                if self._clock.now() - offer.step_time < STEP:
                    raise OfferError("this step is not a day old")
                if seen.ring.machines <= seen.ring.bad:
                    raise OfferError("no machine has done well on it since this step began")
            wider = Offer(
                percent=next(step for step in STEPS if step > offer.percent),
                step_time=self._clock.now(),
            )
            return await self._put(change, known, wider, OfferAction.WIDENED, actor, reason)

    async def hold(self, code_release: str, *, actor: str, reason: str) -> CodeRelease:
        """Offer a release to nobody; machines that run it stay routed.

        Raises:
            ReleaseNotFoundError: no such release.
            OfferError: it is not active.
            InvalidArgumentError: no reason is given.
        """
        _demand(reason)
        async with self._store.transaction() as change:
            known = await _locked(change, code_release)
            if known.offer.held:
                return known
            held = dataclasses.replace(known.offer, held=reason)
            return await self._put(change, known, held, OfferAction.HELD, actor, reason)

    async def resume(self, code_release: str, *, actor: str, reason: str) -> CodeRelease:
        """Offer a release to its ring again; what happened before no longer counts.

        Raises:
            ReleaseNotFoundError: no such release.
            OfferError: it is not active.
            InvalidArgumentError: no reason is given.
        """
        _demand(reason)
        async with self._store.transaction() as change:
            known = await _locked(change, code_release)
            if not known.offer.held:
                return known
            again = Offer(percent=known.offer.percent, step_time=self._clock.now())
            return await self._put(change, known, again, OfferAction.RESUMED, actor, reason)

    async def run(self) -> None:
        """Look every minute; an unreachable store is asked again at the next look."""
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                await self.look()
            except StoreUnavailableError:
                _log.warning("release_look_postponed")

    async def look(self) -> None:
        """Hold every offer whose machines do worse than the rest."""
        active = await self._store.list_releases(include_inactive=False)
        held = 0
        for release in active:
            offer = release.offer
            if not offer.held and self._clock.now() - offer.step_time <= WATCHED:
                reason = why_held(*await self._figures(release, active))
                if reason:
                    held += await self._hold_by_itself(release, reason)
            held += bool(offer.held)
        self._held(held)

    async def _hold_by_itself(self, seen: CodeRelease, reason: str) -> bool:
        async with self._store.transaction() as change:
            known = await change.releases.lock(seen.code_release)
            # Somebody may have widened, resumed or held it since: that is to be looked at anew.
            if known is None or not known.active or known.offer != seen.offer:
                return False
            held = dataclasses.replace(known.offer, held=reason)
            await self._put(change, known, held, OfferAction.HELD, ITSELF, reason)
        _log.error("release_held", release=seen.version, reason=reason)
        return True

    async def _figures(
        self, release: CodeRelease, active: Sequence[CodeRelease]
    ) -> tuple[Figures, Figures]:
        now = self._clock.now()
        others = [
            one
            for one in active
            if one.code_release != release.code_release and one.version != release.version
        ]
        ours = _order(release.version)
        wanted = Compared(
            code_release=release.code_release,
            version=release.version,
            others=[one.code_release for one in others],
            other_versions=sorted({one.version for one in others}),
            older_versions=sorted({one.version for one in others if _order(one.version) < ours}),
            since=max(release.offer.step_time, now - WINDOW),
            known_before=max(release.offer.step_time, release.create_time),
            now=now,
        )
        return await self._store.offer_figures(wanted)

    async def _put(
        self,
        change: Transaction,
        known: CodeRelease,
        offer: Offer,
        action: OfferAction,
        actor: str,
        reason: str,
    ) -> CodeRelease:
        changed = dataclasses.replace(known, offer=offer)
        await change.releases.put(changed)
        await change.offers.add(
            OfferChange(
                code_release=known.code_release,
                time=self._clock.now(),
                actor=actor,
                action=action,
                percent=offer.percent,
                reason=reason,
            )
        )
        return changed


async def _locked(change: Transaction, code_release: str) -> CodeRelease:
    known = await change.releases.lock(code_release)
    if known is None:
        raise ReleaseNotFoundError("no such code release")
    if not known.active:
        raise OfferError("only an active release is offered")
    return known


def _demand(reason: str) -> None:
    if not reason.strip():
        raise InvalidArgumentError("is needed", "reason")


def _order(version: str) -> tuple[tuple[int, ...], bool]:
    """Order by number, pre-releases before their release; what is no version comes first."""
    numbers = _NUMBERS.match(version)
    if numbers is None:
        return (), False
    return tuple(int(part) for part in numbers.groups()[:3]), numbers.group(4) is None
