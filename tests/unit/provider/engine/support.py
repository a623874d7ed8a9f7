"""A tiny tokenizer, a model that needs no weights, and a sink that remembers."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import tokenizers
from darkbloom_edge.chat_template.template import ChatTemplate
from darkbloom_edge.delta import Delta
from darkbloom_edge.request import ChatRequest
from darkbloom_provider.engine.batch import Candidate, RowSpec, StepResult, TokenEvent
from darkbloom_provider.engine.interface import Job, Outcome
from darkbloom_provider.engine.tokenizer import Tokenizer
from darkbloom_provider.models.gguf_tokenizer import tokenizer_files

from tests.unit.provider.models import tiny_gguf


def tiny_tokenizer(template: str | None = tiny_gguf.TEMPLATE, **changes: Any) -> Tokenizer:
    names = tiny_gguf.metadata(**changes)
    files = tokenizer_files(names, len(names["tokenizer.ggml.tokens"]))
    return Tokenizer(
        tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode()),
        end_tokens=frozenset({tiny_gguf.EOS}),
        template=None if template is None else ChatTemplate(template),
        variables={},
    )


def write_tokenizer(directory: Path) -> None:
    names = tiny_gguf.metadata()
    for name, data in tokenizer_files(names, len(names["tokenizer.ggml.tokens"])).items():
        (directory / name).write_bytes(data)
    (directory / "chat_template.jinja").write_text(tiny_gguf.TEMPLATE)


def request(text: str = "hi", **fields: Any) -> ChatRequest:
    return msgspec.convert(
        {
            "model": "org/tiny",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 32,
            **fields,
        },
        ChatRequest,
    )


def job(job_id: str = "j", text: str = "hi", *, build_id: str = "org/tiny", **fields: Any) -> Job:
    bounds = {"prompt_bound": fields.pop("prompt_bound", 400)}
    bounds["output_bound"] = fields.pop("output_bound", 400)
    return Job(job_id=job_id, build_id=build_id, request=request(text, **fields), **bounds)


class RecordingSink:
    """Remembers everything and refuses a second end."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.outcome: Outcome | None = None
        self.ended = asyncio.Event()
        self.heard = asyncio.Event()

    def on_delta(self, delta: Delta) -> None:
        assert self.outcome is None, "delta after the end"
        assert delta.has_content
        assert delta.finish_reason is None
        self.deltas.append(delta)
        self.heard.set()

    def on_end(self, outcome: Outcome) -> None:
        assert self.outcome is None, "two ends"
        self.outcome = outcome
        self.heard.set()
        self.ended.set()

    async def end(self) -> Outcome:
        async with asyncio.timeout(20):
            await self.ended.wait()
        assert self.outcome is not None
        return self.outcome

    async def more(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.deltas) < count and self.outcome is None:
                self.heard.clear()
                await self.heard.wait()

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


class PlannedModel:
    """A `BatchModel` that gives each row the tokens of a plan, one a step."""

    def __init__(self, plan: Callable[[RowSpec], list[int]], *, concurrency: int = 4) -> None:
        self.kv_bytes_per_token = 10
        self.context = 512
        self.prefix_cache = "off"
        self.decode_tps = self.prefill_tps = 0.0
        self.plan = plan
        self.concurrency = concurrency
        self.rows: dict[int, tuple[RowSpec, list[int]]] = {}
        self.suspended: set[int] = set()
        self.made: dict[int, int] = {}
        self.fail_next: BaseException | None = None
        self.die_next: BaseException | None = None
        """Raised where nothing expects it: the thread ends."""
        self.gate: threading.Event | None = None
        """Holds a step up until it is set."""
        self.inside = threading.Event()
        """Set while a step is held up."""
        self.asleep = threading.Event()
        """Set once there are rows and none of them can go on."""
        self.steps = 0
        self.closed = False
        self._next = 0

    def add(self, spec: RowSpec) -> int:
        self._next += 1
        self.rows[self._next] = (spec, self.plan(spec))
        self.made[self._next] = 0
        return self._next

    def step(self) -> StepResult:
        if self.gate is not None:
            self.inside.set()
            assert self.gate.wait(20)
        if self.fail_next is not None:
            raise self.fail_next
        self.steps += 1
        events = []
        active = [row for row in self.rows if row not in self.suspended][: self.concurrency]
        for row in active:
            spec, tokens = self.rows[row]
            token = tokens[self.made[row] % len(tokens)]
            self.made[row] += 1
            ended = token == tiny_gguf.EOS
            exhausted = self.made[row] >= spec.max_tokens
            if ended or exhausted:
                del self.rows[row]
            events.append(TokenEvent(row, token, ended, exhausted, -0.5, (Candidate(token, -0.5),)))
        return StepResult(events, 1, 0.01, 0.01)

    def remove(self, row: int) -> None:
        self.rows.pop(row, None)
        self.suspended.discard(row)

    def suspend(self, row: int) -> None:
        self.suspended.add(row)

    def resume(self, row: int) -> None:
        self.suspended.discard(row)

    def has_work(self) -> bool:
        if self.die_next is not None:
            raise self.die_next
        can = self.concurrency > 0 and any(row not in self.suspended for row in self.rows)
        if self.rows and not can:
            self.asleep.set()
        return can

    def close(self) -> None:
        self.closed = True


class PlannedLoader:
    """Gives planned models, or raises what it is told."""

    def __init__(self, plan: Callable[[RowSpec], list[int]]) -> None:
        self.plan = plan
        self.models: list[PlannedModel] = []
        self.failure: Exception | None = None
        self.closed = False
        self.gate: threading.Event | None = None
        """Holds loads up until it is set."""

    def load(
        self, _directory: Path, *, end_tokens: frozenset[int], max_concurrency: int
    ) -> PlannedModel:
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.failure is not None:
            raise self.failure
        model = PlannedModel(self.plan, concurrency=max_concurrency)
        self.models.append(model)
        return model

    def close(self) -> None:
        self.closed = True
