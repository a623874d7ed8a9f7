"""Requests and connections of one network, before anybody is asked who they are."""

from dataclasses import dataclass

import pytest
from darkbloom_gateway import arrivals
from darkbloom_gateway.arrivals import GUESS_COST, Arrivals, Lines, is_local
from darkbloom_gateway.buckets import Rate

ONE = "192.0.2.1"


@dataclass
class Watch:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def counting(rate: Rate | None = None, *, proxies: int = 0) -> tuple[Arrivals, Watch]:
    watch = Watch()
    return Arrivals(rate or Rate(8.0, 5), proxies=proxies, monotonic=watch), watch


def test_a_burst_passes_and_then_one_for_each_interval() -> None:
    gate, watch = counting()
    assert [gate.come(ONE, None) for _ in range(6)] == [0, 0, 0, 0, 0, 1]

    watch.now += 0.125
    assert gate.come(ONE, None) == 0
    assert gate.come(ONE, None) == 1
    assert gate.come("192.0.2.2", None) == 0


def test_what_is_refused_costs_nothing() -> None:
    gate, watch = counting(Rate(1.0, 1))
    gate.come(ONE, None)
    for _ in range(50):
        assert gate.come(ONE, None) == 1

    watch.now += 1.0
    assert gate.come(ONE, None) == 0


def test_a_wrong_credential_costs_as_much_as_forty_requests() -> None:
    gate, watch = counting(Rate(8.0, 50))
    for _ in range(2):
        gate.guessed(ONE, None)

    assert GUESS_COST == 40
    assert gate.come(ONE, None) == 4
    watch.now += 3.875
    assert gate.come(ONE, None) == 0


def test_a_rate_of_none_and_this_host_are_not_counted() -> None:
    free = Arrivals(None, proxies=0, monotonic=Watch())
    counted, _ = counting(Rate(1.0, 1))
    for _ in range(9):
        free.guessed(ONE, None)
        assert free.come(ONE, None) == 0
        for own in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
            assert counted.come(own, None) == 0


def test_only_what_our_own_proxy_wrote_names_a_network() -> None:
    believed, _ = counting(Rate(1.0, 1), proxies=1)
    assert believed.come("127.0.0.1", "6.6.6.6, 203.0.113.9") == 0
    assert believed.come("127.0.0.1", "7.7.7.7, 203.0.113.9") == 1
    assert believed.come("127.0.0.1", "7.7.7.7, 203.0.113.10") == 0

    not_believed, _ = counting(Rate(1.0, 1))
    assert not_believed.come(ONE, "203.0.113.9") == 0
    assert not_believed.come(ONE, "203.0.113.10") == 1


def test_one_ipv6_network_is_one_caller() -> None:
    gate, _ = counting(Rate(1.0, 1))

    assert gate.come("2001:db8::1", None) == 0
    assert gate.come("2001:db8::2", None) == 1
    assert gate.come("2001:db8:0:1::2", None) == 0


def test_memory_is_bounded_and_who_has_waited_is_forgotten_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrivals, "MAX_NETWORKS", 3)
    gate, watch = counting(Rate(1.0, 1))
    for number in range(3):
        assert gate.come(f"192.0.2.{number}", None) == 0
    assert gate.come("192.0.2.9", None) == 0
    assert len(gate._full_at) == 3
    assert gate.come("192.0.2.2", None) == 1

    watch.now += 10
    assert gate.come("192.0.2.10", None) == 0
    assert list(gate._full_at) == ["192.0.2.10"]


def test_connections_are_counted_in_and_out() -> None:
    lines = Lines(3, 2)
    assert [lines.join(ONE), lines.join(ONE), lines.join(ONE)] == [True, True, False]
    assert lines.join("192.0.2.2")
    assert not lines.join("192.0.2.3")

    lines.leave(ONE)
    assert lines.join("192.0.2.3")
    for address in (ONE, "192.0.2.2", "192.0.2.3"):
        lines.leave(address)
    assert (lines.open, dict(lines._by_network)) == (0, {})


def test_behind_a_proxy_and_from_this_host_only_all_connections_count() -> None:
    for lines, address in ((Lines(3, 1, 1), ONE), (Lines(3, 1), "127.0.0.1")):
        assert [lines.join(address) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("::1", True), ("::", True), ("10.0.0.1", False), ("", False)],
)
def test_this_host_is_told_by_its_address(address: str, local: bool) -> None:
    assert is_local(address) is local
