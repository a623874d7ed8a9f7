"""Asks whose publishing key a write carries."""

import hashlib
from typing import Protocol, final

from darkbloom_mesh.errors import ForbiddenError, UnauthenticatedError
from darkbloom_mesh.interceptors import Context
from google.protobuf.message import Message

from darkbloom_registry.approvals import Approvals
from darkbloom_registry.changes import DEVELOPMENT, RESERVED, PublishingKey, Scope

KEY_METADATA = "darkbloom-publishing-key"


class Keys(Protocol):
    """Where keys are kept, by the hash of each."""

    async def publishing_key(self, digest: bytes) -> PublishingKey | None:
        """Return an active key, if there is one."""
        ...


@final
class Admission:
    """Admits writes by key and scope; without a key in development alone."""

    def __init__(
        self, keys: Keys, *, development: bool, approvals: Approvals | None = None
    ) -> None:
        self._approvals = approvals
        self._keys = keys
        self._development = development

    async def decide(self, context: Context, scope: Scope, request: Message) -> str:
        """Return who writes what consumers get; where two have to, both.

        Raises:
            UnauthenticatedError: no key, or one that is not known.
            ForbiddenError: the key has not this scope.
            ApprovalRequiredError: another key has to ask for the same.
        """
        actor = await self.admit(context, scope)
        if self._approvals is None:
            return actor
        return await self._approvals.require(actor, request)

    async def admit(self, context: Context, scope: Scope) -> str:
        """Return who writes.

        Raises:
            UnauthenticatedError: no key, or one that is not known.
            ForbiddenError: the key has not this scope.
        """
        given = dict(context.invocation_metadata() or ()).get(KEY_METADATA)
        if given is None and self._development:
            return DEVELOPMENT
        if not isinstance(given, str) or not given:
            raise UnauthenticatedError("a publishing key is required")
        # A look-up by hash tells a timing attacker nothing about the key.
        key = await self._keys.publishing_key(hashlib.sha256(given.encode()).digest())
        # A label of ours, from before they were reserved, would sign as what it is not.
        if key is None or key.label in RESERVED:
            raise UnauthenticatedError("not a publishing key")
        if scope not in key.scopes:
            raise ForbiddenError(f"this key may not {scope.value}")
        return key.label
