"""The live fleet: who is connected, what each may serve, and how much of it is taken.

One event loop owns it and every method is synchronous, so admitting and debiting is one atomic
step (routing section 7). What only a provider's state decides is judged when it changes, or when
time changes it (`advance`), and kept in groups per build; a scan touches no other provider.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from darkbloom_router import admission
from darkbloom_router.directory import Directory
from darkbloom_router.faults.memory import FaultMemory, Faults
from darkbloom_router.groups import BuildIndex
from darkbloom_router.inventory import Capacity, Inventory, Rejection
from darkbloom_router.judging import Judging
from darkbloom_router.model import Beat, Catalog, ModelFacts, Rules, SlotReport, Tiering, Verdict
from darkbloom_router.provider import Candidate, Provider
from darkbloom_router.rates import FleetRates
from darkbloom_router.reservations import Reservation
from darkbloom_router.revoked import RevokedVerdicts

EVICT_AFTER_S = 90.0
EVICT_SWEEPS = 2
_NEVER = float("inf")
_NOBODY = BuildIndex()


class Fleet:
    """Every provider with a stream here, and the groups that decisions read."""

    def __init__(self, rules: Rules, faults: FaultMemory | None = None) -> None:
        self.rules = rules
        self.faults = FaultMemory() if faults is None else faults
        self.rates = FleetRates(dict(rules.solo_seeds))
        self._directory = Directory()
        self.providers = self._directory.providers
        self.now = float("-inf")
        """The latest moment that the fleet has heard of."""
        self.reserve_gb = 0.0
        """Machines of this memory are kept for the largest build in demand; 0 keeps none."""
        self.revoked = RevokedVerdicts()
        """Verdicts that count no more, whichever way they come."""
        self._inventory = Inventory()
        self._judging = Judging(rules, self.rates)
        self._indexes = self._judging.indexes
        self.on_change: Callable[[Provider], None] = _nobody
        """Told of every change of a provider; must be cheap."""

    def __len__(self) -> int:
        return len(self.providers)

    @property
    def catalog(self) -> Catalog:
        """The catalog in force."""
        return self._inventory.catalog

    def index(self, build: str) -> BuildIndex:
        """Return the groups of a build; not to be changed."""
        return self._indexes.get(build, _NOBODY)

    def rows(self, build: str) -> list[Candidate]:
        """Return the candidates of a build; walks all."""
        return list(self.index(build))

    def owned(self, account_id: str, build: str) -> list[Candidate]:
        """Return an account's own machines that list a build."""
        own = self._directory.machines_of(account_id)
        rows = (provider.candidates.get(build) for provider in own)
        return [row for row in rows if row is not None]

    def machines_of(self, account_id: str) -> list[Provider]:
        """Return the machines that an account has connected."""
        return self._directory.machines_of(account_id)

    def has_machines(self, account_id: str) -> bool:
        """Return whether an account has any machine connected."""
        return self._directory.has_machines(account_id)

    # Who is there

    def join(self, provider: Provider, models: Iterable[ModelFacts]) -> list[Rejection]:
        """Take a registered provider in; returns the builds that it will not serve, and why."""
        self.now = max(self.now, provider.joined_at)
        self._directory.add(provider)
        self.faults.arrived(provider.stable_id, provider.version, self.now)
        provider.faults = self.faults.find(provider.stable_id)
        return self.set_models(provider, models)

    def leave(self, provider: Provider) -> None:
        """Forget a provider whose stream is gone; again does nothing. Its faults are kept."""
        provider.connected = False
        if not self._directory.remove(provider):
            return
        self._inventory.drop(provider)
        for candidate in provider.candidates.values():
            self._unlist(candidate)
        provider.candidates.clear()

    def by_identity(self, identity_key: bytes) -> Provider | None:
        """Return the stream that holds an identity."""
        return self._directory.holder(identity_key)

    def find(self, name: str, identity_key: bytes = b"") -> Provider | None:
        """Return a provider by id, else by identity key."""
        return self.providers.get(name) or self._directory.holder(identity_key)

    def claim(self, provider: Provider) -> Provider | None:
        """Give the identity to a stream that has just proven it; returns the stream replaced."""
        return self._directory.claim(provider)

    def set_models(self, provider: Provider, models: Iterable[ModelFacts]) -> list[Rejection]:
        """Take a full inventory; a build that is rejected now never removes its older self."""
        rejections = self._inventory.take(provider, models)
        self._relist(provider)
        return rejections

    def set_catalog(self, catalog: Catalog) -> None:
        """Replace the catalog and judge every inventory again."""
        self._inventory.catalog = catalog
        self.rates.forget(set(catalog.builds))
        for provider in self.providers.values():
            self._relist(provider)

    # What they say

    def beat(self, provider: Provider, beat: Beat, now: float) -> bool:
        """Take a heartbeat; returns whether its capacity was newer than what was known.

        An old or repeated sequence proves that the provider lives, and nothing else.
        """
        self.now = max(self.now, now)
        provider.beat_at = now
        provider.silent_sweeps = 0
        stays = provider.draining == beat.draining and provider.drain_until == _NEVER
        provider.draining, provider.drain_until = beat.draining, _NEVER
        known = provider.capacity.sequence if provider.capacity else 0
        fresh = beat.capacity is not None and beat.capacity.sequence > known
        if fresh:
            self._measure(provider, beat, now)
        if fresh or beat.capacity is None:
            provider.beat = replace(beat, capacity=None)
        if stays:
            self._moved(provider, measured=True)
        else:
            self.refresh(provider)
        return fresh

    def still(self, provider: Provider, now: float) -> bool:
        """Take a heartbeat that repeats the last one; False where it must be read all the same.

        What is held against a machine moves with time, and what others of its kind measure moves
        its price: then even an old word means something else than before.
        """
        if provider.faults is not None or provider.drain_until != _NEVER:
            return False
        slots = provider.capacity.slots if provider.capacity else {}
        self._sample_solo(provider, slots)
        if not all(self._judging.measured(row) for row in provider.candidates.values()):
            return False
        self.now = max(self.now, now)
        provider.beat_at = provider.capacity_at = now
        provider.silent_sweeps = 0
        self.on_change(provider)
        return True

    def drains(self, provider: Provider, now: float, forget_s: float) -> None:
        """Note that a provider said in passing that it leaves; a heartbeat may say otherwise."""
        provider.draining, provider.drain_until = True, now + forget_s
        self.refresh(provider)

    def set_verdict(self, provider: Provider, verdict: Verdict | None) -> None:
        """Put a verdict in force, or take it away; one that was revoked is none."""
        if verdict is not None and verdict.verdict_id in self.revoked:
            verdict = None
        provider.verdict = verdict
        self.refresh(provider)

    def advance(self, now: float) -> None:
        """Let time pass: whoever's gates it changes is judged again."""
        self.now = max(self.now, now)
        for provider in self._judging.due(self.now):
            if provider.draining and provider.drain_until <= self.now:
                provider.draining, provider.drain_until = False, _NEVER
            self.refresh(provider)

    def refresh(self, provider: Provider) -> None:
        """Judge and price one provider again; call after any change of it."""
        if provider.provider_id not in self.providers:
            return
        self._directory.refile(provider)
        judging, now = self._judging, self.now
        for candidate in provider.candidates.values():
            judging.judge(candidate, now)
            judging.measure(candidate)
            judging.prepare(candidate, now)
        self.on_change(provider)

    def moved(self, provider: Provider) -> None:
        """Price one provider again after `taken_elsewhere`, where nothing else has changed."""
        self._moved(provider)

    def _moved(self, provider: Provider, *, measured: bool = False) -> None:
        """Do the same after attempts or measurements alone have changed: far less to judge."""
        if provider.faults is not None or provider.provider_id not in self.providers:
            # What is held against a machine moves with its attempts.
            self.refresh(provider)
            return
        judging, now = self._judging, self.now
        for candidate in provider.candidates.values():
            if measured:
                judging.measure(candidate)
            judging.prepare(candidate, now)
        self.on_change(provider)

    def hold_against(self, provider: Provider, found: Faults) -> None:
        """Take over what another replica holds against a machine; the caller refreshes it.

        Where two replicas have streams of it, the word of the newer holder counts.
        """
        holder = self._directory.holder(provider.identity_key) or provider
        if provider.epoch >= holder.epoch:
            self.faults.put(provider.stable_id, found)
            provider.faults = found

    # What is taken

    def taken_elsewhere(self, candidate: Candidate, attempts: int, tokens: int) -> None:
        """Add what other replicas debited on a machine since they last said so; may be negative.

        The caller refreshes the provider once it has said everything.
        """
        provider = candidate.provider
        candidate.inflight += attempts
        candidate.pending_tokens += tokens
        provider.inflight += attempts
        provider.pending_tokens += tokens
        if candidate.group is not None:
            self._indexes[candidate.build.build].active += attempts

    def debit(self, candidate: Candidate, tokens: int, prompt_tokens: int = 0) -> Reservation:
        """Take one place and its tokens; the caller has just seen every gate open."""
        provider, pair = candidate.provider, candidate.pair
        if pair is not None:
            pair.sent(self.now)
        taken = Reservation(candidate, tokens, prompt_tokens)
        taken.price()
        provider.inflight += 1
        provider.pending_tokens += tokens
        provider.service_ms += taken.service_ms
        candidate.inflight += 1
        if candidate.group is not None:
            taken.counted = True
            self._indexes[candidate.build.build].active += 1
        candidate.pending_tokens += tokens
        candidate.pending_prompt += prompt_tokens
        self._moved(provider)
        return taken

    def began(self, taken: Reservation) -> None:
        """Note the first content: the prompt has been read and nobody waits behind it."""
        if taken.ended or not taken.prompt_tokens:
            return
        candidate, provider = taken.candidate, taken.candidate.provider
        candidate.pending_prompt -= taken.prompt_tokens
        provider.service_ms -= taken.reading_ms
        taken.prompt_tokens, taken.reading_ms = 0, 0.0
        if provider.faults is not None or candidate.group is None:
            self._moved(provider)
            return
        self._judging.reads(candidate, self.now)
        self.on_change(provider)

    def credit(self, taken: Reservation) -> bool:
        """Give a place and its tokens back; only the first call does, and says so."""
        if taken.ended:
            return False
        taken.ended = True
        candidate, provider = taken.candidate, taken.candidate.provider
        provider.inflight -= 1
        provider.pending_tokens -= taken.tokens
        candidate.inflight -= 1
        if taken.counted and candidate.group is not None:
            self._indexes[candidate.build.build].active -= 1
        candidate.pending_tokens -= taken.tokens
        candidate.pending_prompt -= taken.prompt_tokens
        provider.service_ms -= taken.service_ms
        if provider.inflight == 0:
            # Rounding must not accumulate.
            provider.service_ms = 0.0
        self._moved(provider)
        return True

    # Who must go

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

    def keep_large_machines(self, waiting: Callable[[str], int]) -> None:
        """Keep machines for the largest build that is asked for, from what smaller ones need.

        Args:
            waiting: Returns how many requests wait for a build.
        """
        asked = [
            admission.build_requirement_gb(build)
            for name, build in self.catalog.builds.items()
            if self.index(name).active or waiting(name)
        ]
        enforced = self.rules.tiering is Tiering.ENFORCE
        self.reserve_gb = max(asked) if enforced and len(asked) > 1 else 0.0

    def builds(self) -> Iterator[str]:
        """Yield every build of the catalog."""
        return iter(self.catalog.builds)

    def capacity(self, build: str, now: float) -> Capacity:
        """Return the live capacity of one build."""
        self.advance(now)
        return Capacity.of(build, self.index(build))

    def _measure(self, provider: Provider, beat: Beat, now: float) -> None:
        """Take a newer capacity: rates feed the fleet's medians, room answers clamps."""
        before, provider.capacity, provider.capacity_at = provider.capacity, beat.capacity, now
        slots = beat.capacity.slots if beat.capacity else {}
        family = provider.hardware.chip_family
        for name, candidate in provider.candidates.items():
            slot = slots.get(name)
            tps = slot.decode_tps if slot else 0.0
            old = before.slots.get(name) if before else None
            if slot and (
                old is None
                or (old.decode_tps, old.prefill_tps) != (slot.decode_tps, slot.prefill_tps)
            ):
                candidate.measured_at = now
            self.rates.replace(name, family, candidate.reported_tps, tps)
            candidate.reported_tps = tps
            if (pair := candidate.pair) is not None:
                left = slot.budget_max - slot.budget_used - slot.budget_queued if slot else 0
                unbudgeted = slot is None or slot.budget_max == 0
                pair.shows(_NEVER if unbudgeted else left, now)
        self._sample_solo(provider, slots)

    def _sample_solo(self, provider: Provider, slots: Mapping[str, SlotReport]) -> None:
        """Take the rates of a machine on which one row runs at most."""
        if sum(slot.running + slot.waiting for slot in slots.values()) > 1:
            return
        family = provider.hardware.chip_family
        for name, candidate in provider.candidates.items():
            if candidate.reported_tps > 0:
                self.rates.sample_solo(name, family, provider.stable_id, candidate.reported_tps)

    def _relist(self, provider: Provider) -> None:
        """Make the candidacies agree with inventory and catalog; running attempts keep theirs."""
        wanted = self._inventory.accepted(provider)
        for name in [name for name in provider.candidates if name not in wanted]:
            self._unlist(provider.candidates.pop(name))
        for name, (build, facts) in wanted.items():
            known = provider.candidates.get(name)
            if known is None:
                known = provider.candidates[name] = Candidate(provider, build, facts)
                self._judging.add(known)
            else:
                known.build, known.facts = build, facts
        self.refresh(provider)

    def _unlist(self, candidate: Candidate) -> None:
        name = candidate.build.build
        family = candidate.provider.hardware.chip_family
        self.rates.replace(name, family, candidate.reported_tps, 0.0)
        candidate.reported_tps = 0.0
        self._judging.remove(candidate)


def _nobody(_provider: Provider) -> None:
    """Nobody wants to know."""
