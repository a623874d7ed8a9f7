"""One request is one trace over the rooms; the machines of strangers send none."""

import secrets

import pytest
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_mesh.telemetry import SPAN_ATTRIBUTES, SPANS

from tests.mesh.collector import Collector, Span
from tests.mesh.harness import Consumer, metrics_of, script, until

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

WANTED = {
    ("darkbloom-gateway", "gateway.request"),
    ("darkbloom-gateway", "gateway.auth"),
    ("darkbloom-gateway", "registry.resolve"),
    ("darkbloom-router", "router.select"),
    ("darkbloom-router", "provider.attempt"),
    ("darkbloom-billing", "billing.reserve"),
    ("darkbloom-billing", "billing.settle"),
}


async def trace_of(consumer: Consumer, collector: Collector, *, sampled: bool) -> list[Span]:
    trace_id, parent = secrets.token_hex(16), secrets.token_hex(8)
    answer = await consumer.post(
        {"model": SCRIPTED, "messages": script(tokens=5)},
        headers={"traceparent": f"00-{trace_id}-{parent}-0{int(sampled)}"},
    )
    assert answer.status_code == 200
    await consumer.usage(answer.headers["x-inference-job-id"])
    if sampled:

        async def whole() -> bool:
            return {(s.room, s.name) for s in collector.of_trace(trace_id)} >= WANTED

        await until(whole, "the whole trace has arrived")
        (root,) = [s for s in collector.of_trace(trace_id) if s.name == "gateway.request"]
        assert root.parent_id == parent
    return collector.of_trace(trace_id)


async def test_a_request_is_one_trace_from_the_callers_span_to_the_settlement(
    mesh: Mesh, consumer: Consumer, collector: Collector
) -> None:
    spans = await trace_of(consumer, collector, sampled=True)
    known = {span.span_id for span in spans}
    (root,) = [span for span in spans if span.name == "gateway.request"]
    assert all(span.parent_id in known for span in spans if span is not root)


async def test_what_the_caller_does_not_sample_is_not_sent(
    mesh: Mesh, consumer: Consumer, collector: Collector
) -> None:
    quiet = await trace_of(consumer, collector, sampled=False)
    await trace_of(consumer, collector, sampled=True)
    assert quiet == []


async def test_a_provider_sends_no_spans(mesh: Mesh, collector: Collector) -> None:
    assert collector.spans
    assert not [span for span in collector.spans if "provider" in span.room]


async def test_spans_say_what_their_list_allows_and_how_far_an_attempt_came(
    mesh: Mesh, consumer: Consumer, collector: Collector
) -> None:
    spans = await trace_of(consumer, collector, sampled=True)
    assert {key for span in collector.spans for key in span.attributes} <= set(SPAN_ATTRIBUTES)
    assert {span.name for span in collector.spans} <= set(SPANS)
    (attempt,) = [span for span in spans if span.name == "provider.attempt"]
    assert attempt.attributes >= {"attempt", "attempt_id", "chip_family", "outcome", "final_status"}
    assert attempt.events[:2] == ("accepted", "first_content")
    (root,) = [span for span in spans if span.name == "gateway.request"]
    assert "first_content_ms" in root.attributes


async def test_a_scraper_that_asks_for_them_is_shown_traces_beside_times(
    mesh: Mesh, consumer: Consumer, collector: Collector
) -> None:
    await trace_of(consumer, collector, sampled=True)
    known = {span.trace_id for span in collector.spans}
    shown = await metrics_of(mesh, "gateway", exemplars=True)
    for name in ("darkbloom_ttft_seconds_bucket", "darkbloom_http_request_seconds_bucket"):
        lines = [line for line in shown.splitlines() if line.startswith(name) and " # {" in line]
        traces = {line.partition('trace_id="')[2].partition('"')[0] for line in lines}
        assert traces, name
        assert traces <= known
    assert " # {" not in await metrics_of(mesh, "gateway")
