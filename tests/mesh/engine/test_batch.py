"""Rows never see each other: what a row says alone it says in any company, come and go who may."""

import dataclasses
import random  # noqa: TID251 - seeded: the schedules of joins and cancels
from pathlib import Path

import pytest
from darkbloom_provider.engine.batch import RowSpec
from darkbloom_provider.engine.errors import EngineError
from darkbloom_provider.engine.mlx.batch import MlxBatch
from darkbloom_provider.engine.mlx.loader import MlxLoader
from darkbloom_provider.engine.sampling import Sampling
from darkbloom_provider.models.gguf import WeightType
from darkbloom_provider.models.store import StoredModel

from tests.mesh.engine.kinds import KINDS, write_kind
from tests.mesh.engine.tiny import import_tiny
from tests.unit.provider.models import tiny_gguf

pytestmark = pytest.mark.engine

LETTERS = range(3, 250)
GREEDY = Sampling(seed=0)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    return import_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def batch(stored: StoredModel) -> MlxBatch:
    return load(stored.directory)


def load(directory: Path, *, concurrency: int = 4) -> MlxBatch:
    loaded = MlxLoader().load(
        directory, end_tokens=frozenset({tiny_gguf.EOS}), max_concurrency=concurrency
    )
    assert isinstance(loaded, MlxBatch)
    return loaded


def random_spec(draw: random.Random) -> RowSpec:
    greedy = draw.random() < 0.4
    return RowSpec(
        tokens=draw.choices(LETTERS, k=draw.randint(1, 70)),
        max_tokens=draw.randint(1, 24),
        sampling=Sampling(
            seed=draw.getrandbits(40),
            temperature=0.0 if greedy else draw.choice([0.5, 1.0, 1.5]),
            top_p=draw.choice([1.0, 0.9]),
            top_k=draw.choice([0, 20]),
            min_p=draw.choice([0.0, 0.02]),
            frequency_penalty=draw.choice([0.0, 0.5]),
            presence_penalty=draw.choice([0.0, -0.5]),
            repetition_penalty=draw.choice([1.0, 1.2]),
            logit_bias=draw.choice([{}, {5: 3.0}]),
        ),
        top_logprobs=None,
    )


def generate(batch: MlxBatch, spec: RowSpec) -> list[int]:
    row = batch.add(spec)
    tokens = []
    while batch.has_work():
        for event in batch.step().events:
            assert event.row == row
            tokens.append(event.token)
    return tokens


class Crowd:
    """Rows that join, pause and are cancelled at random."""

    def __init__(self, batch: MlxBatch, draw: random.Random) -> None:
        self.batch, self.draw = batch, draw
        self.specs: dict[int, RowSpec] = {}
        self.said: dict[int, list[int]] = {}
        self.live: set[int] = set()
        self.paused: set[int] = set()
        self.cancelled: set[int] = set()

    def join(self) -> None:
        spec = random_spec(self.draw)
        row = self.batch.add(spec)
        self.specs[row], self.said[row] = spec, []
        self.live.add(row)

    def cancel(self) -> None:
        row = self.draw.choice(sorted(self.live))
        self.batch.remove(row)
        self.cancelled.add(row)
        self.live.discard(row)
        self.paused.discard(row)

    def pause_or_resume(self) -> None:
        row = self.draw.choice(sorted(self.live))
        if row in self.paused:
            self.batch.resume(row)
            self.paused.discard(row)
        else:
            self.batch.suspend(row)
            self.paused.add(row)

    def step(self) -> None:
        for event in self.batch.step().events if self.batch.has_work() else []:
            assert event.row in self.live - self.paused
            self.said[event.row].append(event.token)
            if event.ended or event.exhausted:
                self.live.discard(event.row)

    def finish(self) -> None:
        for row in self.paused:
            self.batch.resume(row)
        self.paused.clear()
        while self.batch.has_work():
            self.step()


@pytest.mark.parametrize("seed", [1, 2])
def test_solo_and_batched_rows_agree_under_random_joins_cancels_and_pauses(
    stored: StoredModel, seed: int
) -> None:
    check_company(stored.directory, seed, steps=100)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_attention_says_the_same_alone_and_in_company(
    tmp_path: Path, kind: str
) -> None:
    check_company(write_kind(tmp_path / kind, kind), 7, steps=30)


def check_company(directory: Path, seed: int, *, steps: int) -> None:
    """Compare what rows say in a random crowd with what each says alone."""
    draw = random.Random(seed)
    crowd, solo = Crowd(load(directory), draw), load(directory)

    for _ in range(steps):
        if len(crowd.live) < 8 and draw.random() < 0.35:
            crowd.join()
        if crowd.live and draw.random() < 0.08:
            crowd.cancel()
        if crowd.live and draw.random() < 0.25:
            crowd.pause_or_resume()
        crowd.step()
    crowd.finish()

    assert len(crowd.specs) > steps // 8
    assert crowd.cancelled
    for row, spec in crowd.specs.items():
        alone, said = generate(solo, spec), crowd.said[row]
        expected = alone[: len(said)] if row in crowd.cancelled else alone
        assert said == expected, f"row {row} changed in company"


def test_a_row_is_not_changed_by_a_neighbour_with_other_words(batch: MlxBatch) -> None:
    spec = RowSpec(tokens=list(range(10, 40)), max_tokens=12, sampling=GREEDY, top_logprobs=None)
    alone = generate(batch, spec)

    for other in (5, 77, 200):
        row = batch.add(spec)
        batch.add(dataclasses.replace(spec, tokens=[other] * 50))
        said = []
        while batch.has_work():
            said += [event.token for event in batch.step().events if event.row == row]
        assert said == alone


def test_a_removed_row_says_nothing_more(batch: MlxBatch) -> None:
    spec = RowSpec(tokens=[9, 8, 7], max_tokens=50, sampling=GREEDY, top_logprobs=None)
    gone, stays = batch.add(spec), batch.add(spec)
    while not any(event.row == gone for event in batch.step().events):
        pass
    batch.remove(gone)
    batch.remove(gone)

    rest = []
    while batch.has_work():
        rest += batch.step().events
    assert {event.row for event in rest} == {stays}


def test_rows_can_be_removed_while_waiting_and_while_their_prompt_is_read(
    stored: StoredModel,
) -> None:
    batch = load(stored.directory, concurrency=1)
    long = RowSpec(tokens=[5] * 200, max_tokens=5, sampling=GREEDY, top_logprobs=None)
    first, second = batch.add(long), batch.add(long)
    batch.step()
    batch.remove(first)
    batch.remove(second)
    assert not batch.has_work()

    assert len(generate(batch, long)) == 5


def test_rows_can_be_paused_while_waiting_and_while_their_prompt_is_read(
    stored: StoredModel,
) -> None:
    batch = load(stored.directory, concurrency=1)
    spec = RowSpec(tokens=list(range(3, 200)), max_tokens=5, sampling=GREEDY, top_logprobs=None)
    alone = generate(batch, spec)

    for steps in range(9):
        row = batch.add(spec)
        said: list[int] = []
        for _ in range(steps):
            said += [event.token for event in batch.step().events]
        batch.suspend(row)
        batch.suspend(row)
        assert not batch.has_work()
        batch.resume(row)
        batch.resume(row)
        while batch.has_work():
            said += [event.token for event in batch.step().events]
        assert said == alone, steps


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(batch: MlxBatch) -> None:
    def said(seed: int) -> list[int]:
        sampling = Sampling(seed=seed, temperature=1.5)
        return generate(
            batch, RowSpec(tokens=[9], max_tokens=16, sampling=sampling, top_logprobs=None)
        )

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_the_token_that_ends_a_turn_is_marked(batch: MlxBatch) -> None:
    sampling = Sampling(seed=0, logit_bias={tiny_gguf.EOS: 100.0})
    row = batch.add(RowSpec(tokens=[9], max_tokens=16, sampling=sampling, top_logprobs=None))

    events = []
    while batch.has_work():
        events += batch.step().events
    assert [(e.row, e.token, e.ended) for e in events] == [(row, tiny_gguf.EOS, True)]


def test_log_probabilities_are_ranked_and_include_the_greedy_token(batch: MlxBatch) -> None:
    batch.add(RowSpec(tokens=[9], max_tokens=3, sampling=GREEDY, top_logprobs=4))

    events = []
    while batch.has_work():
        events += batch.step().events
    for event in events:
        assert event.logprob < 0
        assert event.rivals[0].token == event.token
        assert len(event.rivals) == 4
        assert list(event.rivals) == sorted(event.rivals, key=lambda c: -c.logprob)


def test_the_cost_of_a_token_is_measured(batch: MlxBatch) -> None:
    head = tiny_gguf.HIDDEN // tiny_gguf.HEADS

    assert batch.kv_bytes_per_token == 2 * tiny_gguf.LAYERS * tiny_gguf.KV_HEADS * head * 4
    assert batch.context == tiny_gguf.CONTEXT


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_a_quantised_build_says_what_its_floats_say(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    spec = RowSpec(tokens=[9, 8, 7], max_tokens=12, sampling=GREEDY, top_logprobs=None)

    floats = load(import_tiny(tmp_path / "a", kind=kind).directory)
    packed = load(import_tiny(tmp_path / "b", kind=kind, dtype=WeightType.QUANTIZED).directory)

    assert generate(packed, spec) == generate(floats, spec)


@pytest.mark.parametrize("damage", ["no weights", "cut weights", "no config", "own code"])
def test_files_that_cannot_be_loaded_are_a_typed_error(tmp_path: Path, damage: str) -> None:
    directory = import_tiny(tmp_path).directory
    weights, config = directory / "model.safetensors", directory / "config.json"
    if damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no config":
        config.unlink()
    else:
        config.write_text('{"model_type": "llama", "model_file": "evil.py"}')
        (directory / "evil.py").write_text("raise SystemExit")

    with pytest.raises(EngineError):
        load(directory)
