"""Spans of attempts: how they ended, how far they came, and which went before."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from darkbloom_mesh.telemetry import SPAN_ATTRIBUTES
from darkbloom_router.failures import Code
from darkbloom_router.figures import chip_label, of_fleet, release_label
from darkbloom_router.model import Admission
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from tests.unit.router.desk import Desk, K
from tests.unit.router.fleets import provider, verdict

PARENT = f"00-{'5a' * 16}-{'1b' * 8}-01"


def traced(*names: str) -> tuple[Desk, InMemorySpanExporter]:
    kept = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(kept))
    return Desk(*names, tracer=tracers.get_tracer("test")), kept


def attempts(kept: InMemorySpanExporter) -> Sequence[ReadableSpan]:
    return [span for span in kept.get_finished_spans() if span.name == "provider.attempt"]


def test_a_retry_is_linked_to_the_attempt_that_failed() -> None:
    desk, kept = traced("a", "b")
    stream, first = desk.dispatched(traceparent=PARENT)
    desk.error(first, Code.GENERATION_FAILURE)
    desk.error(desk.seal(desk.offers(stream)[-1]), Code.GENERATION_FAILURE)
    failed, again = attempts(kept)
    assert not failed.links
    assert [link.context.span_id for link in again.links] == [failed.context.span_id]
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "provider_error_before_response"
    assert failed.attributes["attempt_id"] == first.attempt_id
    assert not failed.status.is_ok
    assert failed.context.trace_id == again.context.trace_id
    assert failed.context.trace_id == int("5a" * 16, 16)
    said = {key for span in kept.get_finished_spans() for key in span.attributes or ()}
    assert said <= set(SPAN_ATTRIBUTES)


async def test_who_won_a_race_is_linked_to_who_lost_it() -> None:
    desk, kept = traced("a", "b")
    stream, _ = desk.dispatched(traceparent=PARENT)
    await desk.pass_time(1.1)
    second = desk.seal(desk.offers(stream)[-1])
    desk.down(second, K.FRAME_KIND_ACCEPTED, b"")
    desk.chunk(second)
    desk.hang_up(second)
    lost, won = attempts(kept)
    assert lost.attributes is not None
    assert won.attributes is not None
    assert (lost.attributes["final_status"], lost.attributes["outcome"]) == (
        "cancelled", "lost_race",
    )  # fmt: skip
    assert lost.status.is_unset
    assert won.attributes["hedge"] == 1
    assert [link.context.span_id for link in won.links] == [lost.context.span_id]
    assert [event.name for event in won.events] == ["accepted", "first_content"]


async def test_every_attempt_is_counted_as_ended_once() -> None:
    desk = Desk("a", "b")
    stream, _ = desk.dispatched()
    await desk.pass_time(1.1)
    second = desk.seal(desk.offers(stream)[-1])
    desk.chunk(second)
    desk.chunk(second, 1, K.FRAME_KIND_CHUNK_FINAL)
    desk.terminal(second)
    desk.close(second)
    desk.close(second)
    await desk.pass_time(31)
    page = generate_latest(desk.metrics.registry).decode().splitlines()
    ended = [line for line in page if line.startswith("darkbloom_attempt_outcomes_total")]
    assert sorted(line.partition('class="')[2].partition('"')[0] for line in ended) == [
        "lost_race", "success",
    ]  # fmt: skip
    assert all(line.endswith(" 1.0") for line in ended)


@pytest.mark.parametrize(
    ("said", "shown"),
    [("M4", "m4"), ("", "unknown"), ("m3", "m3"), ("my name is Bob", "other")],
)
def test_a_chip_family_is_one_of_ours(said: str, shown: str) -> None:
    assert chip_label(said) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("0.9.12", "0.9.12"),
        ("0.9", "0.9.0"),
        ("v1.2.3-rc1", "prerelease"),
        ("", "unknown"),
        ("nightly", "unknown"),
    ],
)
def test_a_version_is_counted_by_its_release(said: str, shown: str) -> None:
    assert release_label(said) == shown


def test_strangers_cannot_use_up_the_names_of_releases() -> None:
    strangers = [provider(f"s{n}", version=f"{n}.0.1", verdict=None) for n in range(40)]
    caught = provider("caught", version="7.7.7", untrusted="revoked")
    figures = of_fleet([*strangers, caught, provider("mine", version="0.9.1")], now=0.0)
    assert figures.releases == {"unknown": 41, "0.9.1": 1}


def test_a_bad_patch_shows_and_only_blessed_code_of_everybodys_machines_names_its_version() -> None:
    owned = replace(verdict(), admission=Admission.OWNER)
    fleet = [
        provider("old", version="0.9.1"),
        provider("bad", version="0.9.2"),
        provider("mine", version="0.9.3", verdict=owned),
        provider("strange", version="0.9.4", runtime_verified=False),
    ]
    assert of_fleet(fleet, now=0.0).releases == {"0.9.1": 1, "0.9.2": 1, "other": 2}
