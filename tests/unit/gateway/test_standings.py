from collections.abc import Sequence

from darkbloom.router.v1.fleet_pb2 import Explanation
from darkbloom_gateway.standings import FRESH_S, MAX_KEPT, MAX_MACHINES, Standings
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.errors import UnavailableError


class Hands(SystemClock):
    """A clock that only these tests turn."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class Router:
    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.down: set[bytes] = set()

    async def explain(self, key: bytes) -> Sequence[Explanation]:
        self.asked.append(key)
        if key in self.down:
            raise UnavailableError("away")
        return [Explanation(build=key.decode())]


async def test_the_router_is_asked_once_in_a_while() -> None:
    router, clock = Router(), Hands()
    standings = Standings(router.explain, clock)
    await standings.of([b"a"])
    found = await standings.of([b"a"])
    assert (router.asked, [one.build for one in found[b"a"]]) == ([b"a"], ["a"])

    clock.now_s += FRESH_S + 0.1
    await standings.of([b"a"])
    assert router.asked == [b"a", b"a"]


async def test_what_cannot_be_read_is_left_out() -> None:
    router = Router()
    router.down = {b"b"}
    found = await Standings(router.explain, Hands()).of([b"a", b"b", b"c"])
    assert sorted(found) == [b"a", b"c"]


async def test_neither_machines_nor_memory_are_without_end() -> None:
    router = Router()
    standings = Standings(router.explain, Hands())
    many = [str(number).encode() for number in range(MAX_KEPT + 5)]
    assert len(await standings.of(many)) == MAX_MACHINES
    for key in many:
        await standings.of([key])
    assert len(standings._kept) == MAX_KEPT
