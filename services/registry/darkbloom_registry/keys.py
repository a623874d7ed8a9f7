"""Publishing keys: made, replaced and revoked by the owner of the database, and on record."""

import hashlib
from collections.abc import Sequence
from typing import Any, final

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_registry.changes import OWNER, RESERVED, Change, Scope
from darkbloom_registry.errors import KeyNotFoundError, LabelTakenError
from darkbloom_registry.ports import Store, Writing

_MAX_LABEL = 128


@final
class PublishingKeys:
    """A label has one key, for ever: who took it over would sign with its history."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def keep(self, key: str, label: str, scopes: Sequence[Scope], *, replace: bool) -> None:
        """Accept a key from now on; only its hash is kept.

        Raises:
            InvalidArgumentError: no scope, or no label that a key may have.
            LabelTakenError: the label has, or had, a key, and `replace` is not said.
        """
        if not 0 < len(label) <= _MAX_LABEL or not label.isprintable() or label != label.strip():
            raise InvalidArgumentError("must be 1 to 128 printable characters", "label")
        if label in RESERVED:
            raise InvalidArgumentError("is what the registry calls itself", "label")
        if not scopes:
            raise InvalidArgumentError("required", "scopes")
        async with self._store.write() as writing:
            known = await writing.label_known(label, active=False)
            if known and not replace:
                raise LabelTakenError("this label has, or had, a key; replace it expressly")
            await writing.put_key(hashlib.sha256(key.encode()).digest(), label, scopes)
            said = {"scopes": sorted(scope.value for scope in scopes), "replaced": known}
            await self._record(writing, "key", label, said)

    async def revoke(self, label: str) -> None:
        """Accept the key of a label no more.

        Raises:
            KeyNotFoundError: there is no active one.
        """
        async with self._store.write() as writing:
            if not await writing.label_known(label, active=True):
                raise KeyNotFoundError("no active key has this label")
            await writing.revoke_key(label)
            await self._record(writing, "key_revoked", label, {})

    async def _record(
        self, writing: Writing, action: str, label: str, said: dict[str, Any]
    ) -> None:
        await writing.bump(
            Change(actor=OWNER, action=action, subject=label, time=self._clock.now(), detail=said)
        )
