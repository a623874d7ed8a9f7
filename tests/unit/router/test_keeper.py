"""The keeper of the warm pool: what it sends, what it hears, and when it keeps still."""

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import LoadModel, LoadModelStatus, OperationStatus
from darkbloom_mesh.telemetry import Metrics
from darkbloom_mesh.testing import FakeClock
from darkbloom_router.meter import Meter
from darkbloom_router.timers import Timers
from darkbloom_router.warm.keeper import WarmKeeper
from darkbloom_router.warm.pool import SWAP_EVERY_S, WarmPool, WarmRules
from darkbloom_router.warm.targets import Signal

from tests.unit.router.fleets import BUILD, NOW, fleet, provider
from tests.unit.router.test_warm import cold


class Lane:
    """Keeps what is sent to one provider."""

    def __init__(self) -> None:
        self.loads: list[str] = []

    def send_control(self, kind: int, stream: int, message: LoadModel) -> None:
        assert (kind, stream) == (FrameKind.FRAME_KIND_LOAD_MODEL, 0)
        self.loads.append(message.model_id)


class Scene:
    """One keeper over a small fleet: one machine holds the build, some could."""

    def __init__(self, warm: int = 1, able: int = 2, **changes: object) -> None:
        self.clock = FakeClock()
        self.clock.jump(NOW)
        self.machines = [cold(f"cold{i}") for i in range(able)]
        holders = [provider(f"warm{i}") for i in range(warm)]
        self.lanes = {one: Lane() for one in (*holders, *self.machines)}
        self.timers = Timers(self.clock)
        self.waiting: dict[str, object] = {}
        self.leads = True
        rules = WarmRules(**changes)
        self.keeper = WarmKeeper(
            WarmPool(fleet(*holders, *self.machines), lambda _: len(self.waiting), rules),
            self.lanes,
            self.timers,
            Meter(Metrics(version="test")),
            waiting=lambda: self.waiting,
            is_leader=lambda: self.leads,
        )

    def sent(self) -> int:
        return sum(len(lane.loads) for lane in self.lanes.values())

    def tick(self) -> None:
        for build in self.keeper.due():
            self.keeper.tick(build)


def test_lost_demand_makes_cold_machines_load() -> None:
    scene = Scene()
    scene.keeper.pool.note(BUILD, Signal.CAPACITY_REJECT)
    scene.tick()
    assert scene.sent() == 1
    scene.keeper.pool.note(BUILD, Signal.CAPACITY_REJECT)
    scene.tick()
    assert scene.sent() <= 2  # nobody is told twice


def test_only_the_leader_loads() -> None:
    scene = Scene()
    scene.leads = False
    scene.keeper.pool.note(BUILD, Signal.CAPACITY_REJECT)
    scene.tick()
    assert scene.sent() == 0


def test_an_observer_plans_and_sends_nothing() -> None:
    scene = Scene(observe_only=True)
    scene.keeper.pool.note(BUILD, Signal.CAPACITY_REJECT)
    assert scene.keeper.tick(BUILD).chosen
    assert scene.sent() == 0


async def test_a_waiter_for_a_build_that_nobody_holds_wakes_a_machine() -> None:
    scene = Scene(warm=0)
    scene.waiting[BUILD] = 1
    scene.keeper.kick(BUILD)
    scene.keeper.kick(BUILD)
    await scene.clock.advance(SWAP_EVERY_S + 0.01)
    scene.timers.fire()
    assert scene.sent() == 1


def test_a_load_that_failed_is_not_pending_any_more() -> None:
    scene = Scene(warm=0, able=1, min_warm=((BUILD, 1),))
    scene.tick()
    [machine] = scene.machines
    failed = LoadModelStatus(
        model_id=BUILD,
        status=OperationStatus.OPERATION_STATUS_FAILED,
        error="insufficient_memory",
    )
    now = scene.clock.monotonic()
    assert scene.keeper.pool.pending.count(now) == 1
    scene.keeper.answered(machine, failed)
    assert scene.keeper.pool.pending.count(now) == 0
    assert scene.keeper.pool.pending.stands(machine.provider_id, BUILD, now)
    scene.keeper.left(machine)
    assert not scene.keeper.pool.pending.standing()
