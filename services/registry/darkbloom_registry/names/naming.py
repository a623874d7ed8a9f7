"""The names of models: each write is one transaction, decided by pure rules, idempotent."""

from dataclasses import asdict
from typing import Any, final

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_registry.aliases import check_alias, check_marketplace_alias, succeed
from darkbloom_registry.changes import Change
from darkbloom_registry.errors import (
    AliasNotFoundError,
    NameFollowedError,
    NameTakenError,
    RolloutRunsError,
)
from darkbloom_registry.model import Alias, MarketplaceAlias
from darkbloom_registry.names.takeovers import check_end, check_owner
from darkbloom_registry.ports import Store, Writing


@final
class Naming:
    """Points names at builds.

    Every write holds the one lock of the generation, shared by both kinds of names and by builds:
    no id is ever two of them by accident.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def upsert_alias(self, wanted: Alias, *, actor: str) -> tuple[Alias, int]:
        """Create or change an alias; return it as stored and the generation.

        Raises:
            InvalidArgumentError: a field is wrong, or names a build that is not registered.
            NameTakenError: a build has this name, or marketplaces have it.
            TakeoverLiveError: it took a build's id over, and that build is still served.
            RolloutRunsError: a rollout moves this alias.
        """
        wanted = check_alias(wanted)

        async with self._store.write() as writing:
            current = await writing.alias(wanted.alias_id)
            owner = await writing.build(wanted.alias_id)
            check_owner(wanted, current, owner)
            if not wanted.active:
                check_end(current, owner)
            if await writing.marketplace_alias(wanted.alias_id) is not None:
                raise NameTakenError("marketplaces have this name; delete it there first")
            for field in ("desired_build", "previous_build"):
                target: str = getattr(wanted, field)
                if target and await writing.build(target) is None:
                    raise InvalidArgumentError("not a registered build", f"alias.{field}")

            if await writing.live_rollout(wanted.alias_id) is not None:
                raise RolloutRunsError("a rollout moves this alias; revert it first")
            successor = succeed(wanted, current)
            if successor == current:
                return successor, writing.generation

            await writing.put_alias(successor)
            await self._note(writing, actor, "alias", current, successor)
            return successor, writing.generation

    async def upsert_marketplace_alias(
        self, wanted: MarketplaceAlias, *, actor: str
    ) -> tuple[MarketplaceAlias, int]:
        """Create or change a name for marketplaces; return it as stored and the generation.

        Raises:
            InvalidArgumentError: a field is wrong, or it follows neither alias nor build.
            NameTakenError: a build or an alias has this name.
        """
        wanted = check_marketplace_alias(wanted)

        async with self._store.write() as writing:
            taken = await writing.build(wanted.alias_id) or await writing.alias(wanted.alias_id)
            if taken is not None:
                raise NameTakenError("a build or an alias has this name")
            source = wanted.source_model
            if await writing.alias(source) is None and await writing.build(source) is None:
                raise InvalidArgumentError("not an alias or a build", "alias.source_model")
            current = await writing.marketplace_alias(wanted.alias_id)
            if wanted == current:
                return wanted, writing.generation

            await writing.put_marketplace_alias(wanted)
            await self._note(writing, actor, "marketplace_alias", current, wanted)
            return wanted, writing.generation

    async def delete_alias(self, alias_id: str, *, actor: str) -> int:
        """Take a name of either kind away; return the generation.

        Raises:
            AliasNotFoundError: there is no such alias.
            RolloutRunsError: a rollout moves it.
            TakeoverLiveError: it took a build's id over, and that build is still served.
            NameFollowedError: a name for marketplaces follows it.
        """
        async with self._store.write() as writing:
            alias = await writing.alias(alias_id)
            current = alias or await writing.marketplace_alias(alias_id)
            if current is None:
                raise AliasNotFoundError("no such alias")
            if await writing.live_rollout(alias_id) is not None:
                raise RolloutRunsError("a rollout moves this alias; revert it first")
            build = await writing.build(alias_id)
            check_end(alias, build)
            # Where a build of the same id is served, who follows the name goes on with the build.
            followers = await writing.marketplace_aliases_of(alias_id)
            if followers and (build is None or not build.listed):
                raise NameFollowedError(f"{followers[0]} of marketplaces follows it; delete that")
            await writing.delete_alias(alias_id)
            await self._note(writing, actor, "alias_deleted", current, None)
            return writing.generation

    async def _note(
        self,
        writing: Writing,
        actor: str,
        action: str,
        before: Alias | MarketplaceAlias | None,
        after: Alias | MarketplaceAlias | None,
    ) -> None:
        subject = after or before
        said: dict[str, Any] = {
            "before": asdict(before) if before else None,
            "after": asdict(after) if after else None,
        }
        change = Change(
            actor=actor,
            action=action,
            subject=subject.alias_id if subject else "",
            time=self._clock.now(),
            detail=said,
        )
        await writing.bump(change)
