"""`darkbloom models catalog` and `download`: what the network has, and how it comes here."""

import asyncio
import contextlib
import json
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Annotated

import psutil
import typer
from darkbloom_edge.memory import min_ram_gb
from darkbloom_mesh.clock import SystemClock
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from darkbloom_provider.cli import context
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.fetchers import gateway_of, make_fetcher
from darkbloom_provider.models import download as downloads
from darkbloom_provider.models.catalog import CatalogClient, CatalogEntry
from darkbloom_provider.models.errors import DiskFullError
from darkbloom_provider.models.fetching import Order
from darkbloom_provider.models.sources.opening import own_place
from darkbloom_provider.models.store import ModelStore, StoredModel
from darkbloom_provider.stocking import can_fit

_GIB = 1 << 30
LINE_STEP = 10
"""In a pipe a line is printed for each so many percent."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def catalog(
    type_: Annotated[str, typer.Option("--type", help="Only models of this type.")] = "",
    json_: Json = False,
) -> None:
    """List what the network wants served, what of it fits this machine, and what is here."""
    config = context.config()
    entries = asyncio.run(_catalog(config, type_))
    rows = [_row(entry, config) for entry in entries]
    if json_:
        typer.echo(json.dumps({"memory_gb": _memory_gb(), "models": rows}))
        return
    if not rows:
        typer.echo("The catalog is empty.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("model", "size", "needs", "fits", "here"):
        table.add_column(title, no_wrap=title != "model", justify="left")
    for row in rows:
        table.add_row(
            str(row["id"]),
            f"{row['size_gb']} GB",
            f"{row['needs_ram_gb']} GB",
            "yes" if row["fits"] else "no",
            {"active": "yes", "older": "older version"}.get(str(row["downloaded"]), ""),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"\nThis machine has {_memory_gb()} GB. Get one: darkbloom models download ID",
        soft_wrap=True,
    )


def download(
    model_id: Annotated[str, typer.Argument(help="Id, as `models catalog` lists it.")],
    version: Annotated[str, typer.Option(help="This version, not the active one.")] = "",
    source: Annotated[
        str, typer.Option(help="Ask this place only: https, hf:org/name@commit, s3 or file URL.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also what does not fit this machine.")
    ] = False,
    json_: Json = False,
) -> int:
    """Fetch a model, or go on where the last attempt stopped.

    Every file is checked against a manifest that the network has signed. Ctrl-C keeps what has
    come.
    """
    config = context.config()
    config.folders.create()
    try:
        stored = asyncio.run(
            _download(config, model_id, version, source=source, force=force, json_=json_)
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        typer.echo("stopped; what has come is kept, run the same command to go on", err=True)
        return 1
    facts = {
        "id": stored.manifest.model_id,
        "version": stored.manifest.version,
        "size_bytes": stored.manifest.total_size_bytes,
        "weight_hash": stored.manifest.aggregate_sha256,
        "directory": str(stored.directory),
    }
    if json_:
        typer.echo(json.dumps({"event": "done", **facts}))
    else:
        typer.echo(f"{facts['id']} {facts['version']} is in the store, hash {facts['weight_hash']}")
    return 0


async def _catalog(config: ProviderConfig, type_: str) -> tuple[CatalogEntry, ...]:
    async with CatalogClient(gateway_of(config)) as client:
        return await client.models(type_)


def _row(entry: CatalogEntry, config: ProviderConfig) -> dict[str, object]:
    active = entry.get()
    size = active.size_bytes if active is not None else 0
    store = ModelStore(config.store_root)
    here = {
        one.manifest.identity_sha256 for one in store.list() if one.manifest.model_id == entry.id
    }
    downloaded = "older" if here else ""
    if active is not None and active.identity_sha256 in here:
        downloaded = "active"
    return {
        "id": entry.id,
        "display_name": entry.display_name,
        "type": entry.type,
        "version": entry.version,
        "quantization": entry.quantization,
        "context_length": entry.context_length,
        "size_bytes": size,
        "size_gb": round(size / 1e9, 2),
        "needs_ram_gb": min_ram_gb(size),
        "fits": can_fit(config, size),
        "downloaded": downloaded,
    }


def _memory_gb() -> int:
    return round(psutil.virtual_memory().total / _GIB)


async def _download(
    config: ProviderConfig, model_id: str, version: str, *, source: str, force: bool, json_: bool
) -> StoredModel:
    fetcher = make_fetcher(config)
    place = own_place(source, fetcher.settings) if source else None
    order = await fetcher.order(model_id, version)
    if not force and not can_fit(config, order.manifest.weight_bytes):
        raise ProviderError(
            f"{model_id} needs {min_ram_gb(order.manifest.weight_bytes)} GB of memory, this"
            f" machine has {_memory_gb()} GB",
            "`darkbloom models catalog` shows what fits; --force downloads it anyway",
        )
    if order.pinned_now:
        typer.echo(f"trusting manifests of key {order.key_id} from now on", err=True)
    store = ModelStore(config.store_root)
    downloader = downloads.Downloader(
        store=store, clock=SystemClock(), uniform=secrets.SystemRandom().random
    )
    with _stopping(), _showing(order, json_=json_) as report:
        try:
            stored = await fetcher.fetch(order, downloader, report, place=place)
        except DiskFullError as error:
            raise ProviderError(
                str(error),
                "make room, or move the store: `darkbloom models location PATH`; what has come"
                " is kept",
            ) from None
    _select(store, stored, order)
    return stored


def _select(store: ModelStore, stored: StoredModel, order: Order) -> None:
    """Serve the network's version from the next start on; a running agent decides by itself."""
    model_id = stored.manifest.model_id
    served = any(
        store.in_use(model_id, one.manifest.version)
        for one in store.list()
        if one.manifest.model_id == model_id
    )
    if not served and stored.manifest.version == order.entry.version:
        store.select(stored)


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Let SIGTERM end a download as cleanly as Ctrl-C does."""
    task = asyncio.current_task()
    if task is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@contextlib.contextmanager
def _showing(order: Order, *, json_: bool) -> Iterator[downloads.Report]:
    """Show bars on a terminal, lines in a pipe, events as JSON."""
    total = order.manifest.total_size_bytes
    done: dict[str, int] = {}
    if json_ or not sys.stderr.isatty():
        lines = _Lines(order.manifest.model_id, total, json_=json_)

        def count(one: downloads.Progress) -> None:
            done[one.path] = one.done_bytes
            lines.tell(sum(done.values()))

        yield count
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        whole = bars.add_task(order.manifest.model_id, total=total)
        rows: dict[str, TaskID] = {}

        def draw(one: downloads.Progress) -> None:
            done[one.path] = one.done_bytes
            bars.update(whole, completed=sum(done.values()))
            if one.done_bytes == one.size_bytes:
                if one.path in rows:
                    bars.remove_task(rows.pop(one.path))
                return
            if one.path not in rows:
                rows[one.path] = bars.add_task(f"  {one.path}", total=one.size_bytes)
            bars.update(rows[one.path], completed=one.done_bytes)

        yield draw


class _Lines:
    """Progress for whoever reads a pipe: few lines."""

    def __init__(self, name: str, total: int, *, json_: bool) -> None:
        self._name = name
        self._total = total
        self._json = json_
        self._said = -1

    def tell(self, done: int) -> None:
        percent = 100 * done // self._total if self._total else 100
        step = percent - percent % LINE_STEP
        if step <= self._said:
            return
        self._said = step
        if self._json:
            facts = {"event": "progress", "done_bytes": done, "total_bytes": self._total}
            typer.echo(json.dumps(facts))
        else:
            typer.echo(f"{self._name}: {step} %", err=True)
