"""Blessing code and taking it back."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Literal, final

from darkbloom_edge.documents import rfc3339
from darkbloom_edge.errors import SignatureRejected
from darkbloom_edge.log import ReleaseEntry
from darkbloom_edge.release import code_release_id, open_manifest
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_attestation.errors import (
    DevelopmentOnlyError,
    ReleaseConflictError,
    ReleaseNotFoundError,
    ReleaseUnsignedError,
    ReleaseWithdrawnError,
)
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.model import CodeRelease, OfferAction, OfferChange
from darkbloom_attestation.offers import OPERATOR, first_offer
from darkbloom_attestation.ports import Store, Transaction

_HASH = re.compile(r"[0-9a-f]{64}")
_MAX_TEMPLATES = 256


@final
class Releases:
    """Registers, activates and deactivates code releases; each change is in the public log.

    Args:
        store: where they are.
        issuer: signs revocations.
        clock: time.
        development: whether development trees may be blessed.
        release_keys: who may sign releases, by key id; None takes unsigned ones.
    """

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        clock: Clock,
        *,
        development: bool,
        release_keys: Mapping[str, bytes] | None = None,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._clock = clock
        self._development = development
        self._release_keys = release_keys

    async def register(self, release: CodeRelease) -> CodeRelease:
        """Bless or stage a release; the same again changes nothing, and a deactivated one stays so.

        A development tree is whatever it is now, so registering it again replaces its hashes.

        Raises:
            InvalidArgumentError: a hash is malformed, or the id is not that of the runtime hash.
            DevelopmentOnlyError: a development release outside development.
            ReleaseUnsignedError: no pinned release key has signed just this.
            ReleaseConflictError: it was blessed with other hashes before.
        """
        _check(release)
        if release.development and not self._development:
            raise DevelopmentOnlyError("a development release is never blessed in production")
        self._check_signature(release)
        wanted = dataclasses.replace(
            release, active=not release.staged, create_time=self._clock.now()
        )

        async with self._store.transaction() as change:
            known = await change.releases.lock(release.code_release)
            if known is None:
                return await self._put(change, wanted)
            if known.measured == release.measured and known.development == release.development:
                return known
            if not (known.development and release.development and known.active):
                raise ReleaseConflictError("this release was blessed with other hashes")
            replaced = dataclasses.replace(wanted, create_time=known.create_time)
            return await self._put(change, replaced)

    async def activate(self, code_release: str) -> CodeRelease:
        """Bless a staged release; it is offered to the first ring.

        Raises:
            ReleaseNotFoundError: no such release.
            ReleaseWithdrawnError: it was taken back, and no release ever returns.
        """
        async with self._store.transaction() as change:
            known = await change.releases.lock(code_release)
            if known is None:
                raise ReleaseNotFoundError("no such code release")
            if known.active:
                return known
            if not known.staged:
                raise ReleaseWithdrawnError("this release was taken back and never returns")

            return await self._put(change, dataclasses.replace(known, active=True, staged=False))

    async def deactivate(self, code_release: str) -> CodeRelease:
        """Take a release back and revoke the verdicts that rest on it.

        Raises:
            ReleaseNotFoundError: no such release.
        """
        now = self._clock.now()
        async with self._store.transaction() as change:
            known = await change.releases.lock(code_release)
            if known is None:
                raise ReleaseNotFoundError("no such code release")
            if not known.active and not known.staged:
                return known

            inactive = dataclasses.replace(known, active=False, staged=False)
            await change.releases.put(inactive)
            if known.active:
                await change.log.append(_entry(inactive, "withdrawn", now))
            await change.verdicts.revoke(
                [
                    self._issuer.revocation(verdict_id, "code_release_deactivated", now)
                    for verdict_id in await change.verdicts.live_of_release(code_release, now)
                ]
            )

        return inactive

    async def _put(self, change: Transaction, release: CodeRelease) -> CodeRelease:
        if not release.active:
            await change.releases.put(release)
            return release

        now = self._clock.now()
        offer, reason = first_offer(release, await change.releases.active(development=True), now)
        offered = dataclasses.replace(release, offer=offer)
        await change.releases.put(offered)
        await change.log.append(_entry(offered, "blessed", now))
        if not offered.development:
            await change.offers.add(
                OfferChange(
                    code_release=offered.code_release,
                    time=now,
                    actor=OPERATOR,
                    action=OfferAction.BEGUN,
                    percent=offer.percent,
                    reason=reason,
                )
            )
        return offered

    def _check_signature(self, release: CodeRelease) -> None:
        """Refuse a release that no pinned key has signed, or signed as something else."""
        signed = release.manifest
        if signed is None:
            if release.development or self._release_keys is None:
                return
            raise ReleaseUnsignedError("a release needs a manifest signed by a pinned release key")

        try:
            manifest = open_manifest(
                signed.document, signed.signature, signed.key_id, self._release_keys or {}
            )
        except SignatureRejected as error:
            raise ReleaseUnsignedError(f"release manifest: {error}") from None
        measured = release.measured
        if (
            manifest.code_release != release.code_release
            or manifest.release_version != release.version
            or manifest.platform != release.platform
            or manifest.python_hash != measured.python_hash
            or manifest.template_hashes != measured.template_hashes
        ):
            raise ReleaseUnsignedError("the signed manifest speaks of another release")


def _entry(
    release: CodeRelease, action: Literal["blessed", "withdrawn"], now: datetime
) -> ReleaseEntry:
    measured, signed = release.measured, release.manifest

    return ReleaseEntry(
        action=action,
        code_release=release.code_release,
        release_version=release.version,
        platform=release.platform,
        python_hash=measured.python_hash,
        runtime_hash=measured.runtime_hash,
        template_hashes=dict(measured.template_hashes),
        development=release.development,
        manifest_sha256=None if signed is None else hashlib.sha256(signed.document).hexdigest(),
        time=rfc3339(now),
    )


def _check(release: CodeRelease) -> None:
    measured = release.measured
    for name, value in (
        ("runtime_hash", measured.runtime_hash),
        ("python_hash", measured.python_hash),
        *(("template_hashes", value) for value in measured.template_hashes.values()),
    ):
        if _HASH.fullmatch(value) is None:
            raise InvalidArgumentError("must be 64 lower-case hex characters", f"release.{name}")
    if len(measured.template_hashes) > _MAX_TEMPLATES:
        raise InvalidArgumentError(f"more than {_MAX_TEMPLATES}", "release.template_hashes")
    if release.code_release != code_release_id(measured.runtime_hash):
        raise InvalidArgumentError("is not `sha256:` and the runtime hash", "release.code_release")
