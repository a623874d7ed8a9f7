"""Which builds a provider may serve: what it lists, measured against the catalog."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from darkbloom_router.groups import BuildIndex
from darkbloom_router.model import Build, Catalog, ModelFacts
from darkbloom_router.provider import Provider


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a listed build is not routed to a provider."""

    build: str
    detail: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """Live capacity of one build."""

    build: str
    routable: int
    warm: int
    cold: int
    active: int
    budget_total: int
    budget_left: int

    @classmethod
    def of(cls, build: str, index: BuildIndex) -> "Capacity":
        """Sum the groups up; a machine is routable when no gate is shut by its state alone."""
        routable = [row for key, members in index.groups.items() if not key.gate for row in members]
        warm = sum(row.slot_state.warm for row in routable)
        return cls(
            build=build,
            routable=len(routable),
            warm=warm,
            cold=len(routable) - warm,
            active=index.active,
            budget_total=sum(slot.budget_max for row in routable if (slot := row.slot)),
            budget_left=sum(int(row.room) for row in routable if row.slot and row.slot.budget_max),
        )


class Inventory:
    """What every provider lists, and the catalog that it is judged by."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self._facts: dict[str, dict[str, ModelFacts]] = {}

    def take(self, provider: Provider, models: Iterable[ModelFacts]) -> list[Rejection]:
        """Keep a full inventory; a build that is rejected now never removes its older self."""
        kept = self._facts.get(provider.provider_id, {})
        facts: dict[str, ModelFacts] = {}
        rejections = []
        for model in models:
            detail = self._objection(provider, model)
            if not detail:
                facts[model.build] = model
                continue
            rejections.append(Rejection(model.build, detail))
            old = kept.get(model.build)
            facts[model.build] = old if old and not self._objection(provider, old) else model
        self._facts[provider.provider_id] = facts
        return rejections

    def accepted(self, provider: Provider) -> dict[str, tuple[Build, ModelFacts]]:
        """Return the builds that the catalog agrees with."""
        facts = self._facts.get(provider.provider_id, {})
        return {
            name: (self.catalog.builds[name], _with_tools(self.catalog.builds[name], model))
            for name, model in facts.items()
            if not self._objection(provider, model)
        }

    def drop(self, provider: Provider) -> None:
        """Forget a provider."""
        self._facts.pop(provider.provider_id, None)

    def _objection(self, provider: Provider, model: ModelFacts) -> str:
        build = self.catalog.builds.get(model.build)
        if build is None:
            return "not in the catalog"
        if model.weight_hash not in build.accepted_hashes:
            return "weight hash differs from the catalog: download the build again"
        if (provider.backend == "scripted") is not build.scripted:
            return "the scripted engine serves the dev/ namespace, and only it does"
        return ""


def _with_tools(build: Build, model: ModelFacts) -> ModelFacts:
    """Return the facts without tools where the machine's prompts are not those that were tried.

    Fixtures that one side does not know say nothing: releases differ in them.
    """
    tried = build.renderings.get(model.weight_hash, {})
    same = all(tried.get(name, digest) == digest for name, digest in model.renderings.items())
    return model if same else replace(model, tools=False)
