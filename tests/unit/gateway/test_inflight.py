"""How full a gateway is, as an autoscaler sees it."""

from darkbloom_gateway.gate import Gate
from darkbloom_gateway.meters import Meters
from darkbloom_mesh.telemetry import Metrics


def test_requests_in_flight_are_read_when_somebody_looks() -> None:
    metrics, gate = Metrics(version="0"), Gate(8)
    Meters(metrics).follow(lambda: gate.inflight)

    def shown() -> float | None:
        return metrics.registry.get_sample_value("darkbloom_requests_inflight")

    assert shown() == 0
    with gate.entered(), gate.entered():
        assert shown() == 2
    assert shown() == 0
