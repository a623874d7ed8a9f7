"""`darkbloom benchmark`: the engine that serves, measured by itself."""

import json
from types import SimpleNamespace

import pytest
from darkbloom_edge.usage import Usage
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider import benchmarking, lock
from darkbloom_provider.engine.errors import invalid
from darkbloom_provider.engine.interface import Job, Outcome, OutcomeKind, Sink
from darkbloom_provider.errors import ProviderError

from tests.component.provider.models import BUILD, place_model

EX_USAGE = 64


class Metronome:
    """An engine that takes 0.5 s for a prompt and 0.1 s for each token that follows."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.jobs: list[Job] = []
        self.fails = False

    async def submit(self, job: Job, sink: Sink) -> None:
        self.jobs.append(job)
        self.clock.jump(0.5)
        sink.on_delta(SimpleNamespace())
        tokens = job.request.max_tokens
        self.clock.jump(0.1 * (tokens - 1))
        usage = Usage(prompt_tokens=100, completion_tokens=tokens)
        kind = OutcomeKind.ERROR if self.fails else OutcomeKind.COMPLETED
        error = invalid("out of breath") if self.fails else None
        sink.on_end(Outcome(kind=kind, usage=usage, finish_reason="length", error=error))


def plan(**changes) -> benchmarking.Plan:
    fields = {
        "model": "org/a",
        "prompt": "go",
        "iterations": 3,
        "max_tokens": 11,
        "lengths": (128, 512),
        "batches": (1,),
    }
    return benchmarking.Plan(**{**fields, **changes})


async def test_rates_are_tokens_by_time_on_the_clock():
    clock = FakeClock()
    engine = Metronome(clock)
    report = await benchmarking.measure(engine, plan(), clock)
    assert [row.wanted_tokens for row in report.prefill] == [128, 512]
    for row in report.prefill:
        assert (row.prompt_tokens, row.first_token_ms, row.tokens_per_s) == (100, 500.0, 200.0)
    [decode] = report.decode
    assert (decode.tokens, decode.first_token_ms) == (11, 500.0)
    assert decode.tokens_per_s == decode.tokens_per_s_each == 10.0


async def test_no_run_profits_from_the_one_before():
    clock = FakeClock()
    engine = Metronome(clock)
    await benchmarking.measure(engine, plan(batches=()), clock)
    texts = [job.request.messages[0]["content"] for job in engine.jobs]
    assert len(set(texts)) == len(texts)
    assert all(job.cache_scope == b"" for job in engine.jobs)
    assert len(texts[-1].split()) > len(texts[1].split()) > 50


async def test_a_request_that_fails_is_no_figure():
    clock = FakeClock()
    engine = Metronome(clock)
    engine.fails = True
    with pytest.raises(ProviderError, match="out of breath"):
        await benchmarking.measure(engine, plan(), clock)


@pytest.fixture
def scripted(home, monkeypatch):
    place_model(home.models)
    monkeypatch.setenv("DARKBLOOM_PROVIDER_ENGINE", "scripted")


def test_tables_for_people_and_one_object_for_programs(cli, home, scripted):
    flags = ("--iterations", "1", "--max-tokens", "8", "--prefill-lengths", "16,64")
    code, out, err = cli("benchmark", *flags, "--sweep", "--max-batch", "3", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["model"] == BUILD
    assert [row["wanted_tokens"] for row in said["prefill"]] == [16, 64]
    assert said["prefill"][1]["prompt_tokens"] > said["prefill"][0]["prompt_tokens"]
    assert [row["requests"] for row in said["decode"]] == [1, 2, 3]

    with lock.single_instance(home.lock):
        code, out, err = cli("benchmark", *flags, "--model", BUILD)
    assert code == 0
    assert "prompt tokens" in out
    assert "tokens/s together" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "The agent runs" in err


@pytest.mark.parametrize("lengths", ["", "0", "12,x", "99999"])
def test_lengths_that_are_none_are_refused(cli, scripted, lengths):
    assert cli("benchmark", "--prefill-lengths", lengths)[0] == EX_USAGE


def test_a_model_that_is_not_here_is_named(cli, scripted):
    code, _, err = cli("benchmark", "--model", "dev/none")
    assert code == 1
    assert "dev/none" in err
