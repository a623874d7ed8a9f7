"""One provider's machine: its sessions with the router, the requests that it runs, its faults."""

from collections.abc import Callable
from functools import partial
from random import Random  # noqa: TID251 - the type; randomness is passed in

from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom.router.v1.provider_link_pb2 import (
    AttemptError,
    FailureCode,
    FailureReason,
    InferenceRequest,
    LoadModel,
    Terminal,
)
from google.protobuf.message import Message

from darkbloom_router.model import (
    Admission,
    Hardware,
    ModelFacts,
    Privacy,
    Signed,
    TrustLevel,
    Verdict,
)
from darkbloom_router.provider import Provider
from darkbloom_router.simulate import hardware
from darkbloom_router.simulate.body import Body
from darkbloom_router.simulate.core import Core
from darkbloom_router.simulate.engine import Engine, Row
from darkbloom_router.simulate.lanes import SimulatedLane
from darkbloom_router.simulate.ledger import Asked
from darkbloom_router.simulate.memory import Memory, Resident
from darkbloom_router.simulate.pulse import Pulse
from darkbloom_router.simulate.scenario import Scenario

SILENT_S = 40.0
"""Until keep-alive notices that somebody left without a word."""
WAITING_ROWS = 4
_FOREVER = 1e12
_SIGNED = Signed(document=b"{}", signature=b"s")
_TERMINAL = Terminal(terminal=SignedDocument(document=b"{}", signature=b"s")).SerializeToString()
_REQUEST = FrameKind.FRAME_KIND_REQUEST
_CANCEL = FrameKind.FRAME_KIND_CANCEL
_LOAD = FrameKind.FRAME_KIND_LOAD_MODEL


class Machine:
    """One provider over its sessions.

    Args:
        body: What it is.
        core: The router.
        scenario: Rates of faults.
        chance: Its own randomness.
        asked: Finds a request by id.
        over: Hears that an attempt is no longer worked on.
    """

    def __init__(
        self,
        body: Body,
        core: Core,
        scenario: Scenario,
        chance: Random,
        asked: Callable[[str], Asked | None],
        over: Callable[[int], None],
    ) -> None:
        self.body = body
        self.connected_s = 0.0
        self.provider: Provider | None = None
        self.cold_loads = 0
        """Loads that a request had to wait for, because nobody had asked for them before."""
        self._core = core
        self._timers = core.timers
        self._scenario = scenario
        self._chance = chance
        self._asked = asked
        self._over = over
        self._lane = SimulatedLane(self._control, _nothing)
        self._engine = Engine(self._timers, self._began, self._ended)
        self._memory = Memory(body)
        self._pulse = Pulse(body, self._memory, core, scenario, chance)
        self._rows: dict[int, Row] = {}
        self._mute = False
        self._sessions = 0
        self._joined_at = 0.0

    # Coming and going

    def connect(self, *, warm: bool) -> None:
        """Open a session; what was in memory is gone."""
        body, now = self.body, self._timers.now()
        self._sessions += 1
        self._mute = False
        self._joined_at = now
        self._engine = Engine(self._timers, self._began, self._ended)
        self._memory.clear()
        self._rows.clear()
        if warm:
            self._memory.settle_in(body.products[0], now)
        lane = self._lane = SimulatedLane(self._control, _nothing)
        provider = self.provider = Provider(
            provider_id=f"prov_{body.name}_{self._sessions}",
            identity_key=b"\x04" + body.name.encode().ljust(64, b"."),
            encryption_key=b"K" * 32,
            hardware=Hardware(
                chip_family=body.chip.family,
                memory_gb=body.memory_gb,
                memory_bandwidth_gbs=body.chip.bandwidth_gbs,
            ),
            privacy=Privacy(inprocess=True, sealed_chunks=True, sip=True),
            backend="mlx-lm",
            version="1.0.0",
            serial=body.name,
            account_id=f"owner_{body.name}",
            runtime_verified=True,
            verdict=Verdict(
                verdict_id=f"ver_{body.name}",
                signed=_SIGNED,
                level=TrustLevel.HARDWARE,
                admission=Admission.PUBLIC,
                expires_at=_FOREVER,
                expires_unix=0.0,
            ),
            passed_at=now,
            joined_at=now,
            beat_at=now,
        )
        self._core.lanes[provider] = lane
        facts = [
            ModelFacts(
                build=product.build.build,
                weight_hash=product.build.build,
                size_bytes=product.build.size_bytes,
            )
            for product in body.products
        ]
        self._core.fleet.join(provider, facts)
        self._core.fleet.claim(provider)
        self._pulse.start(provider, self._engine)

    def reconnect(self, *, warm: bool) -> None:
        """Come back; an older session that nobody has missed yet is superseded."""
        if self.provider is not None:
            self._gone(self._sessions)
        self.connect(warm=warm)

    def disconnect(self, *, abrupt: bool) -> None:
        """Leave: with a word, or so that only keep-alive notices."""
        self._fail_rows()
        if not abrupt:
            self._gone(self._sessions, clean=True)
            return
        self._fall_silent()
        self._timers.after(SILENT_S * self._chance.random(), partial(self._gone, self._sessions))

    def _gone(self, session: int, *, clean: bool = False) -> None:
        provider = self.provider
        if provider is None or session != self._sessions:
            return
        self._fall_silent()
        self._engine.stop()
        self.connected_s += self._timers.now() - self._joined_at
        self.provider = None
        self._lane.close("gone")
        self._core.fleet.leave(provider)
        self._core.warm.left(provider)
        self._core.losses.provider(provider, clean=clean)

    def _fall_silent(self) -> None:
        self._mute = True
        self._pulse.stop()

    def _fail_rows(self) -> None:
        self._engine.stop()
        for row in list(self._rows.values()):
            self._blame(row)
            self._over(row.stream)

    # What the router says

    def _control(self, kind: int, stream: int, message: Message | bytes) -> None:
        self._core.carried.provider_out += 1
        if self._mute:
            asked = (
                self._asked(message.request_id) if isinstance(message, InferenceRequest) else None
            )
            if asked is not None:
                asked.live.discard(stream)
            return
        then = partial(self._timers.after, self.body.net_s)
        if kind == _REQUEST and isinstance(message, InferenceRequest):
            then(partial(self._take, self._sessions, stream, message.request_id, message.build))
        elif kind == _CANCEL:
            then(partial(self._cancel, self._sessions, stream))
        elif kind == _LOAD and isinstance(message, LoadModel):
            then(partial(self._load_asked, self._sessions, message.model_id))

    def _take(self, session: int, stream: int, request_id: str, build: str) -> None:
        """Take a request in, or say why not."""
        asked = self._asked(request_id)
        if session != self._sessions or self._mute or asked is None:
            self._over(stream)
            return
        body, scenario, draw = self.body, self._scenario, self._chance.random
        resident = self._memory.find(build)
        if resident is None and (resident := self._load(build)) is not None:
            self.cold_loads += 1
        if resident is None:
            self._refuse(
                stream,
                FailureCode.FAILURE_CODE_MODEL_UNAVAILABLE,
                FailureReason.FAILURE_REASON_MODEL_LOAD,
            )
            return
        tokens = asked.prompt + asked.bound
        if resident.rows >= body.rows + WAITING_ROWS:
            self._refuse(
                stream, FailureCode.FAILURE_CODE_CAPACITY, FailureReason.FAILURE_REASON_QUEUE_FULL
            )
            return
        if resident.used + tokens > resident.budget:
            self._refuse(
                stream,
                FailureCode.FAILURE_CODE_CAPACITY,
                FailureReason.FAILURE_REASON_TOKEN_BUDGET_EXHAUSTED,
            )
            return
        hangs = draw() < (scenario.sick_stalls if body.sick else scenario.stalls)
        row = Row(
            stream=stream,
            request_id=request_id,
            build=build,
            prompt=asked.prompt,
            output=asked.output,
            tokens=tokens,
            solo_tps=resident.solo_tps,
            prefill_tps=min(resident.solo_tps * hardware.PREFILL_PER_DECODE, 20_000.0),
            hangs=hangs,
            breaks=draw() < scenario.breaks,
        )
        resident.used += tokens
        resident.rows += 1
        self._rows[stream] = row
        self._send(stream, FrameKind.FRAME_KIND_ACCEPTED)
        if hangs:
            self._blame(row)
        elif resident.loaded:
            self._engine.add(row)
        else:
            resident.waits.append(row)
        self._pulse.changed()

    def _cancel(self, session: int, stream: int) -> None:
        row = self._rows.get(stream)
        if session == self._sessions and row is not None:
            resident = self._memory.find(row.build)
            if row.hangs:
                row.gone = True
            elif resident is not None and row in resident.waits:
                resident.waits.remove(row)
            else:
                self._engine.drop(row)
            self._free(row)

    # What the engine does

    def _began(self, row: Row) -> None:
        self._send(row.stream, FrameKind.FRAME_KIND_CHUNK, tokens=1)
        if row.breaks:
            self._blame(row)
            self._engine.drop(row)
            self._refuse(
                row.stream,
                FailureCode.FAILURE_CODE_GENERATION_FAILURE,
                FailureReason.FAILURE_REASON_UNSPECIFIED,
                status=500,
            )
            self._free(row)

    def _ended(self, row: Row) -> None:
        self._send(row.stream, FrameKind.FRAME_KIND_CHUNK_FINAL, tokens=row.output)
        self._send(row.stream, FrameKind.FRAME_KIND_TERMINAL, payload=_TERMINAL)
        self._free(row)

    def _free(self, row: Row) -> None:
        if self._rows.pop(row.stream, None) is None:
            return
        self._over(row.stream)
        resident = self._memory.find(row.build)
        if resident is not None:
            now = self._timers.now()
            resident.used -= row.tokens
            resident.rows -= 1
            resident.touched_at = now
            if not row.hangs:
                resident.stepped_at = now
        self._pulse.changed()

    def _refuse(
        self,
        stream: int,
        code: FailureCode.ValueType,
        detail: FailureReason.ValueType,
        status: int = 503,
    ) -> None:
        error = AttemptError(status_code=status, failure_code=code, reason=detail)
        self._send(stream, FrameKind.FRAME_KIND_ERROR, payload=error.SerializeToString())
        self._over(stream)

    def _send(self, stream: int, kind: int, *, tokens: int = 0, payload: bytes = b"") -> None:
        frame = Frame(stream=stream, kind=kind, tokens=tokens, payload=payload)
        self._timers.after(self.body.net_s, partial(self._arrive, self._sessions, frame))

    def _arrive(self, session: int, frame: Frame) -> None:
        provider = self.provider
        if provider is not None and session == self._sessions:
            self._core.carried.provider_in += 1
            self._core.downlink.take(provider, frame, self._timers.now())

    def _blame(self, row: Row) -> None:
        asked = self._asked(row.request_id)
        if asked is not None:
            asked.machine_failed = True

    # Weights

    def _load_asked(self, session: int, build: str) -> None:
        if session == self._sessions and not self._mute and self._memory.find(build) is None:
            self._load(build)

    def _load(self, build: str) -> Resident | None:
        """Begin to load a build; idle ones make room for it."""
        resident = self._memory.begin(build, self._timers.now())
        if resident is None:
            return None
        load_s = hardware.load_s(resident.product.weights)
        self._timers.after(load_s, partial(self._loaded, self._sessions, resident))
        self._pulse.changed()
        return resident

    def _loaded(self, session: int, resident: Resident) -> None:
        if session != self._sessions or self._mute:
            return
        resident.loaded = True
        waits, resident.waits = resident.waits, []
        for row in waits:
            self._engine.add(row)
        self._pulse.changed()


def _nothing(_frame: Frame) -> None:
    """Bodies carry nothing here."""
