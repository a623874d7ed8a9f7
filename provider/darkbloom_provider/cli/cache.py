"""`darkbloom cache`: the prefix cache, as it is set, as it works, and gone."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from darkbloom_provider import cache_folder, file_edit, lock, state
from darkbloom_provider.cli import context
from darkbloom_provider.engine.prefix.facts import CacheFacts
from darkbloom_provider.engine.prefix.limits import DiskLimits
from darkbloom_provider.engines import vault_of
from darkbloom_provider.errors import ProviderError

app = typer.Typer(
    help="What is kept of prompts so that it need not be read again.",
    no_args_is_help=True,
    epilog="What a reader of the disk could learn: docs/prefix-cache.md.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_LONGEST_TTL_S = DiskLimits().ttl_s


@app.command("status")
def status(json_: JsonOption = False) -> None:
    """Show how the cache is set, what it holds and what it has saved."""
    config = context.config()
    home = config.folders
    running = lock.holder(home.lock) is not None
    snapshot = state.read(home.state) if running else None
    facts = None if snapshot is None else snapshot.prefix_cache
    there = cache_folder.contents(config.prefix_cache_root)
    vault = vault_of(config)
    if json_:
        typer.echo(
            json.dumps(
                {
                    "running": running,
                    "memory_gb": config.prefix_cache_memory_gb,
                    "disk": config.prefix_cache_disk,
                    "disk_gb": config.prefix_cache_disk_gb,
                    "ttl_secs": config.prefix_cache_ttl_secs,
                    "folder": str(config.prefix_cache_root),
                    "key": vault.kind,
                    "contents": asdict(there),
                    "counters": None if facts is None else asdict(facts),
                }
            )
        )
        return
    console = Console(highlight=False)
    wanted = config.prefix_cache_memory_gb
    memory = (
        "an eighth of the requests' memory, at most 1 GiB" if wanted is None else f"{wanted:g} GiB"
    )
    console.print(f"Memory: {'off' if wanted == 0 else memory}")
    disk = f"on, key in {_where(vault.kind)}" if config.prefix_cache_disk else "off"
    console.print(f"Disk: {disk}; {escape(str(config.prefix_cache_root))}", soft_wrap=True)
    console.print(f"  {there.files} blocks, {_size(there.bytes)}, {there.builds} models")
    if facts is None:
        console.print("The agent does not run or keeps nothing: no counters.")
    else:
        _show(console, facts)


@app.command("set")
def set_cache(
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", min=0, help="Memory for it; 0 switches it off.")
    ] = None,
    disk: Annotated[
        bool | None, typer.Option("--disk/--no-disk", help="Keep it on the disk, encrypted.")
    ] = None,
    disk_gb: Annotated[
        float | None, typer.Option("--disk-gb", min=0, help="Most of the disk that it may take.")
    ] = None,
    ttl_secs: Annotated[
        float | None,
        typer.Option("--ttl-secs", min=1, max=_LONGEST_TTL_S, help="Life of an unused block."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Write settings to `provider.toml`; the agent takes them when it starts again."""
    changes: dict[str, file_edit.Value | None] = {
        key: value
        for key, value in (
            ("cache.memory_gb", memory_gb),
            ("cache.disk", disk),
            ("cache.disk_gb", disk_gb),
            ("cache.ttl_secs", ttl_secs),
        )
        if value is not None
    }
    if not changes:
        raise ProviderError("nothing to set", "name a setting, see `darkbloom cache set --help`")
    path = context.config_path()
    file_edit.edit(path, changes)
    if json_:
        typer.echo(json.dumps({"path": str(path), "set": changes}))
        return
    for key, value in changes.items():
        typer.echo(f"{key} = {json.dumps(value)}")
    typer.echo("The agent takes it when it starts again.")


@app.command("purge")
def purge(json_: JsonOption = False) -> None:
    """Remove every block from the disk, and the key where no agent runs."""
    config = context.config()
    running = lock.holder(config.folders.lock) is not None
    gone = cache_folder.purge(config.prefix_cache_root, vault_of(config), running=running)
    if json_:
        typer.echo(json.dumps({"removed": asdict(gone), "key_destroyed": not running}))
        return
    typer.echo(f"Removed {gone.files} blocks, {_size(gone.bytes)}.")
    if running:
        typer.echo("The agent runs: it keeps its key, and what is in its memory until it stops.")
    else:
        typer.echo("The key is destroyed: copies of the folder can never be read.")


def _show(console: Console, facts: CacheFacts) -> None:
    share = f" ({facts.hits / facts.lookups:.0%})" if facts.lookups else ""
    console.print(f"In memory: {_size(facts.memory_bytes)} of {_size(facts.memory_max_bytes)}")
    console.print(
        f"Hits: {facts.hits} of {facts.lookups} prompts{share}; {facts.hit_tokens} tokens were "
        f"not read again, {facts.disk_tokens} of them from the disk"
    )
    if facts.disk:
        console.print(
            f"Disk: {facts.disk_written} blocks written, {facts.disk_dropped} not, "
            f"{facts.disk_bad} found damaged"
        )


def _where(kind: str) -> str:
    return "the Secure Enclave" if kind == "secure-enclave" else "a file of mode 0600"


def _size(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"
