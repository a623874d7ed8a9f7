"""`darkbloom benchmark`: how many tokens this machine makes, with the engine that serves."""

import asyncio
import sys
from dataclasses import replace
from typing import Annotated

import msgspec
import typer
from darkbloom_mesh.clock import SystemClock
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from darkbloom_provider import lock
from darkbloom_provider.benchmarking import Plan, Report, measure
from darkbloom_provider.cli import context
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.engines import load_all, make_engine, take_inventory
from darkbloom_provider.inventory import Inventory

MAX_LENGTH = 32_768
MAX_BATCH = 64
CLOSE_S = 30.0
"""Bound of the engine's end."""
_PROMPT = "Write a long story about a lighthouse keeper who counts the ships."


def benchmark(
    model: Annotated[
        str | None, typer.Option(help="Build of the store; unset: the first that is served.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="What decoding begins with.")] = _PROMPT,
    iterations: Annotated[
        int, typer.Option(min=1, max=20, help="Runs of each row; the median counts.")
    ] = 3,
    max_tokens: Annotated[int, typer.Option(min=2, max=4096, help="Tokens of an answer.")] = 64,
    prefill_lengths: Annotated[
        str, typer.Option(help="Prompt lengths in tokens, with commas between.")
    ] = "128,512,2048",
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Decode with 1, 2, … requests at once.")
    ] = False,
    max_batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, help="Where the sweep ends.")] = 6,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure prompt and answer speed of one model, here and now.

    Nothing is sent anywhere. Stop the agent first: both want the same memory and the same chip.

    Examples: `darkbloom benchmark --sweep`, `darkbloom benchmark --model org/name --json`.
    """
    lengths = _lengths(prefill_lengths)
    config = context.config()
    if lock.holder(config.folders.lock) is not None:
        typer.echo("The agent runs: figures are lower than what the machine can do.", err=True)
    inventory = take_inventory(config if model is None else replace(config, models=(model,)))
    plan = Plan(
        model=inventory.builds[0].build_id,
        prompt=prompt,
        iterations=iterations,
        max_tokens=max_tokens,
        lengths=lengths,
        batches=tuple(range(1, max_batch + 1)) if sweep else (1,),
    )
    report = asyncio.run(_run(config, inventory, plan))
    if json_:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        show(Console(highlight=False), report)


async def _run(config: ProviderConfig, inventory: Inventory, plan: Plan) -> Report:
    clock = SystemClock()
    first = inventory.only(plan.model)
    engine = make_engine(config, first, clock)
    errors = Console(stderr=True, highlight=False)
    quiet = not sys.stderr.isatty()

    def tell(text: str) -> None:
        if not quiet:
            errors.print(f"[dim]{escape(text)} …[/]")

    working = asyncio.ensure_future(engine.run())
    try:
        # An engine takes work once its `run` has begun.
        await clock.sleep(0)
        tell(f"loading {plan.model}")
        await load_all(engine, first.builds)
        return await measure(engine, plan, clock, tell)
    finally:
        async with asyncio.timeout(CLOSE_S):
            await engine.close()
            await working


def show(console: Console, report: Report) -> None:
    """Print two tables."""
    console.print(f"[bold]{escape(report.model)}[/], medians of {report.iterations}\n")
    prompts = _table("prompt tokens", "first token", "tokens/s")
    for row in report.prefill:
        first = f"{row.first_token_ms:,.1f} ms"
        prompts.add_row(f"{row.prompt_tokens:,}", first, f"{row.tokens_per_s:,.1f}")
    console.print(prompts)
    console.print()
    answers = _table("at once", "first token", "tokens/s each", "tokens/s together")
    for one in report.decode:
        answers.add_row(
            str(one.requests),
            f"{one.first_token_ms:,.1f} ms",
            f"{one.tokens_per_s_each:,.1f}",
            f"{one.tokens_per_s:,.1f}",
        )
    console.print(answers)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _lengths(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and 1 <= int(word) <= MAX_LENGTH for word in words):
        raise typer.BadParameter(
            f"must be numbers from 1 to {MAX_LENGTH} with commas between",
            param_hint="--prefill-lengths",
        )
    return tuple(int(word) for word in words)
