"""The live fleet: who is connected, what each may serve, and how much of it is taken.

One event loop owns it and every method is synchronous, so admitting and debiting is one atomic
step (routing section 7). Candidates live in one array per build; a scan touches no other provider.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from darkbloom_router import cost, gates
from darkbloom_router.model import Beat, Build, Catalog, ModelFacts, Rules, Verdict
from darkbloom_router.provider import Candidate, Provider

EVICT_AFTER_S = 90.0
EVICT_SWEEPS = 2


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


class Fleet:
    """Every provider with a stream here, and the arrays that scans read."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.catalog = Catalog()
        self.providers: dict[str, Provider] = {}
        self._by_identity: dict[bytes, Provider] = {}
        self._rows: dict[str, list[Candidate]] = {}
        self._facts: dict[str, dict[str, ModelFacts]] = {}
        self.on_change: Callable[[Provider], None] = _nobody
        """Told of every change of a provider; must be cheap."""

    def __len__(self) -> int:
        return len(self.providers)

    def rows(self, build: str) -> list[Candidate]:
        """Return the candidates of a build; not to be changed."""
        return self._rows.get(build, [])

    def join(self, provider: Provider, models: Iterable[ModelFacts]) -> list[Rejection]:
        """Take a registered provider in; returns the builds that it will not serve, and why."""
        self.providers[provider.provider_id] = provider
        self._by_identity.setdefault(provider.identity_key, provider)
        return self.set_models(provider, models)

    def leave(self, provider: Provider) -> None:
        """Forget a provider whose stream is gone; again does nothing."""
        provider.connected = False
        if self.providers.pop(provider.provider_id, None) is None:
            return
        self._facts.pop(provider.provider_id, None)
        for candidate in provider.candidates.values():
            candidate.shut = True
            self._unlist(candidate)
        provider.candidates.clear()
        if self._by_identity.get(provider.identity_key) is provider:
            del self._by_identity[provider.identity_key]
            for other in self.providers.values():
                if other.identity_key == provider.identity_key:
                    self._by_identity[provider.identity_key] = other

    def by_identity(self, identity_key: bytes) -> Provider | None:
        """Return the stream that holds an identity."""
        return self._by_identity.get(identity_key)

    def find(self, name: str, identity_key: bytes = b"") -> Provider | None:
        """Return a provider by id, else by identity key."""
        return self.providers.get(name) or self._by_identity.get(identity_key)

    def claim(self, provider: Provider) -> Provider | None:
        """Give the identity to a stream that has just proven it; returns the stream replaced."""
        holder = self._by_identity.get(provider.identity_key)
        self._by_identity[provider.identity_key] = provider
        return holder if holder is not provider else None

    def set_models(self, provider: Provider, models: Iterable[ModelFacts]) -> list[Rejection]:
        """Take a full inventory; a build that is rejected now never removes its older self."""
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
        self._relist(provider)
        return rejections

    def set_catalog(self, catalog: Catalog) -> None:
        """Replace the catalog and judge every inventory again."""
        self.catalog = catalog
        for provider in self.providers.values():
            self._relist(provider)

    def beat(self, provider: Provider, beat: Beat, now: float) -> bool:
        """Take a heartbeat; returns whether its capacity was newer than what was known.

        An old or repeated sequence proves that the provider lives, and nothing else.
        """
        provider.beat_at = now
        provider.silent_sweeps = 0
        provider.draining = beat.draining
        known = provider.capacity.sequence if provider.capacity else 0
        fresh = beat.capacity is not None and beat.capacity.sequence > known
        if fresh:
            provider.capacity = beat.capacity
        if fresh or beat.capacity is None:
            provider.beat = replace(beat, capacity=None)
        self.refresh(provider)
        return fresh

    def set_verdict(self, provider: Provider, verdict: Verdict | None) -> None:
        """Put a verdict in force, or take it away."""
        provider.verdict = verdict
        self.refresh(provider)

    def refresh(self, provider: Provider) -> None:
        """Rebuild what scans read of one provider; call after any change of it."""
        for candidate in provider.candidates.values():
            gates.prepare(candidate, self.rules)
            cost.prepare(candidate)
        self.on_change(provider)

    def debit(self, candidate: Candidate, tokens: int) -> None:
        """Take one place and its tokens; the caller has just seen every gate open."""
        provider = candidate.provider
        provider.inflight += 1
        provider.pending_tokens += tokens
        candidate.inflight += 1
        candidate.pending_tokens += tokens
        self.refresh(provider)

    def credit(self, candidate: Candidate, tokens: int) -> None:
        """Give one place and its tokens back; exactly once for each debit."""
        provider = candidate.provider
        provider.inflight -= 1
        provider.pending_tokens -= tokens
        candidate.inflight -= 1
        candidate.pending_tokens -= tokens
        self.refresh(provider)

    def silent(self, now: float) -> list[Provider]:
        """Return the providers to evict: silent for 90 s at two sweeps in a row."""
        gone = []
        for provider in self.providers.values():
            if now - provider.beat_at <= EVICT_AFTER_S:
                provider.silent_sweeps = 0
                continue
            provider.silent_sweeps += 1
            if provider.silent_sweeps >= EVICT_SWEEPS:
                gone.append(provider)
        return gone

    def verdict_holders(self, verdict_id: str, identity_key: bytes) -> list[Provider]:
        """Return the providers that a revocation of a verdict or an identity concerns."""
        return [
            provider
            for provider in self.providers.values()
            if (provider.verdict is not None and provider.verdict.verdict_id == verdict_id)
            or (identity_key and provider.identity_key == identity_key)
        ]

    def builds(self) -> Iterator[str]:
        """Yield every build of the catalog."""
        return iter(self.catalog.builds)

    def capacity(self, build: str, now: float) -> Capacity:
        """Return the live capacity of one build."""
        rows = self.rows(build)
        routable = [row for row in rows if not row.shut and row.trusted_until > now]
        warm = sum(row.slot_state.warm for row in routable)
        total = sum(slot.budget_max for row in routable if (slot := row.slot))
        return Capacity(
            build=build,
            routable=len(routable),
            warm=warm,
            cold=len(routable) - warm,
            active=sum(row.inflight for row in rows),
            budget_total=total,
            budget_left=sum(int(row.room) for row in routable if row.slot and row.slot.budget_max),
        )

    def _objection(self, provider: Provider, model: ModelFacts) -> str:
        build = self.catalog.builds.get(model.build)
        if build is None:
            return "not in the catalog"
        if model.weight_hash not in build.accepted_hashes:
            return "weight hash differs from the catalog: download the build again"
        if (provider.backend == "scripted") is not build.scripted:
            return "the scripted engine serves the dev/ namespace, and only it does"
        return ""

    def _relist(self, provider: Provider) -> None:
        """Make the candidacies agree with inventory and catalog; running attempts keep theirs."""
        facts = self._facts.get(provider.provider_id, {})
        wanted = {
            name: (self.catalog.builds[name], model)
            for name, model in facts.items()
            if not self._objection(provider, model)
        }
        for name in [name for name in provider.candidates if name not in wanted]:
            candidate = provider.candidates.pop(name)
            candidate.shut = True
            self._unlist(candidate)
        for name, (build, model) in wanted.items():
            self._list(provider, name, build, model)
        self.refresh(provider)

    def _list(self, provider: Provider, name: str, build: Build, model: ModelFacts) -> None:
        known = provider.candidates.get(name)
        if known is not None:
            known.build, known.facts = build, model
            return
        candidate = Candidate(provider, build, model)
        rows = self._rows.setdefault(name, [])
        candidate.row = len(rows)
        rows.append(candidate)
        provider.candidates[name] = candidate

    def _unlist(self, candidate: Candidate) -> None:
        """Take a candidate out of its array in constant time: the last one takes its place."""
        rows = self._rows.get(candidate.build.build, [])
        last = rows.pop()
        if last is not candidate:
            rows[candidate.row] = last
            last.row = candidate.row
        candidate.row = -1
        if not rows:
            self._rows.pop(candidate.build.build, None)


def _nobody(_provider: Provider) -> None:
    """Nobody wants to know."""
