"""Blessing code and taking it back."""

import dataclasses
import re
from typing import final

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_attestation.errors import (
    DevelopmentOnlyError,
    ReleaseConflictError,
    ReleaseNotFoundError,
)
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.model import CodeRelease
from darkbloom_attestation.ports import Store
from darkbloom_attestation.runtime import code_release_id

_HASH = re.compile(r"[0-9a-f]{64}")
_MAX_TEMPLATES = 256


@final
class Releases:
    """Registers and deactivates code releases."""

    def __init__(self, store: Store, issuer: Issuer, clock: Clock, *, development: bool) -> None:
        self._store = store
        self._issuer = issuer
        self._clock = clock
        self._development = development

    async def register(self, release: CodeRelease) -> CodeRelease:
        """Bless a release; the same again changes nothing and never revives a deactivated one.

        A development tree is whatever it is now, so registering it again replaces its hashes.

        Raises:
            InvalidArgumentError: a hash is malformed, or the id is not that of the runtime hash.
            DevelopmentOnlyError: a development release outside development.
            ReleaseConflictError: it was blessed with other hashes before.
        """
        _check(release)
        if release.development and not self._development:
            raise DevelopmentOnlyError("a development release is never blessed in production")
        blessed = dataclasses.replace(release, active=True, create_time=self._clock.now())

        async with self._store.transaction() as change:
            known = await change.releases.lock(release.code_release)
            if known is None:
                await change.releases.put(blessed)
                return blessed
            if known.measured == release.measured and known.development == release.development:
                return known
            if not (known.development and release.development and known.active):
                raise ReleaseConflictError("this release was blessed with other hashes")
            replaced = dataclasses.replace(blessed, create_time=known.create_time)
            await change.releases.put(replaced)

        return replaced

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
            if not known.active:
                return known

            inactive = dataclasses.replace(known, active=False)
            await change.releases.put(inactive)
            await change.verdicts.revoke(
                [
                    self._issuer.revocation(verdict_id, "code_release_deactivated", now)
                    for verdict_id in await change.verdicts.live_of_release(code_release, now)
                ]
            )

        return inactive


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
