"""`darkbloom models`: the store on this machine."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from darkbloom_mesh.clock import SystemClock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from darkbloom_provider.cli import context, models_fetch, models_location
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.models.directory import import_directory
from darkbloom_provider.models.gguf import WeightType, import_gguf
from darkbloom_provider.models.store import ModelStore, StoredModel, require_ids

app = typer.Typer(help="Fetch, import, list, verify and remove models.", no_args_is_help=True)

IdOption = Annotated[str, typer.Option("--id", help="What the catalog calls this build.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(
    all_: Annotated[
        bool, typer.Option("--all", help="Every version, not only the one that is served.")
    ] = False,
    hash_: Annotated[
        str, typer.Option("--hash", help="Print the weight hash of this model and nothing else.")
    ] = "",
    json_: JsonOption = False,
) -> None:
    """List what is in the store; does not hash (`verify` does)."""
    store = _store()
    if hash_:
        typer.echo(store.get(hash_).manifest.aggregate_sha256)
        return
    stored = store.list() if all_ else store.served()
    rows = [_row(one) | {"in_use": _in_use(store, one)} for one in stored]
    if json_:
        typer.echo(msgspec.json.encode(rows).decode())
        return
    if not stored:
        typer.echo("No models. Get one: darkbloom models download ID, see `models catalog`")
    for one, row in zip(stored, rows, strict=True):
        manifest = one.manifest
        size = manifest.total_size_bytes / 1e6
        mark = "  served" if row["in_use"] else ""
        typer.echo(
            f"{manifest.model_id}  {manifest.version}  {size:,.0f} MB  "
            f"{manifest.aggregate_sha256[:12]}{mark}"
        )


app.command("catalog")(models_fetch.catalog)
app.command("download")(models_fetch.download)


@app.command("import")
def import_model(
    source: Annotated[Path, typer.Argument(help="A GGUF file, or a folder of safetensors.")],
    build_id: IdOption,
    version: Annotated[str, typer.Option(help="Version tag; immutable once imported.")] = "local",
    dtype: Annotated[
        WeightType, typer.Option(help="How weights are kept; `auto` fits the machine.")
    ] = WeightType.AUTO,
    json_: JsonOption = False,
) -> None:
    """Convert a model into the store, whole or not at all.

    A GGUF file of the llama family becomes weights, config, tokenizer and chat template; a folder
    in the layout of the Hugging Face hub is copied. Nothing in a model is ever executed.
    """
    if not source.exists():
        raise ProviderError(f"{source} does not exist")
    store, now = _store(), SystemClock().now()
    with _progress(enabled=not json_) as bar:
        task = bar.add_task(f"importing {build_id}", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if source.is_dir():
            manifest = import_directory(
                source,
                build_id=build_id,
                version=version,
                root=store.root,
                created_at=now,
                progress=advance,
            )
        else:
            manifest = import_gguf(
                source,
                build_id=build_id,
                version=version,
                root=store.root,
                created_at=now,
                dtype=dtype,
                progress=advance,
            )
    stored = store.get(manifest.model_id, manifest.version)
    if json_:
        typer.echo(msgspec.json.encode(_row(stored)).decode())
        return
    typer.echo(f"{build_id} {version} is in the store, hash {manifest.aggregate_sha256}")


@app.command("verify")
def verify_models(
    build_id: Annotated[str | None, typer.Argument(help="Only this build.")] = None,
    json_: JsonOption = False,
) -> int:
    """Hash every byte and compare with the manifests; exit code 1 on any difference."""
    from darkbloom_provider.models.errors import ModelError

    store, results = _store(), []
    stored = [one for one in store.list() if build_id in (None, one.manifest.model_id)]
    if build_id is not None and not stored:
        raise ProviderError(f"{build_id} is not in the store", "see `darkbloom models list`")
    for one in stored:
        try:
            store.verify(one)
            problem = ""
        except ModelError as error:
            problem = str(error)
        results.append({**_row(one), "ok": not problem, "problem": problem})
        if not json_:
            mark = "ok" if not problem else f"FAILED: {problem}"
            typer.echo(f"{one.manifest.model_id} {one.manifest.version}: {mark}")
    if json_:
        typer.echo(msgspec.json.encode(results).decode())
    return 0 if all(result["ok"] for result in results) else 1


@app.command("remove")
def remove_model(
    build_id: Annotated[str, typer.Argument(help="Build id.")],
    version: Annotated[str, typer.Option(help="Version tag; unset: the served one.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Do not ask, also where it is served now.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Delete one version from the store; the one that the agent serves only with `--force`."""
    store = _store()
    require_ids(build_id, version or None)
    version = version or store.get(build_id).manifest.version
    if not force and store.in_use(build_id, version):
        raise ProviderError(
            f"{build_id} {version} is being served", "stop the agent first, or use --force"
        )
    if not force:
        typer.confirm(f"Delete {build_id} {version}?", abort=True)
    store.remove(build_id, version, force=force)
    if json_:
        typer.echo(msgspec.json.encode({"removed": build_id, "version": version}).decode())
        return
    typer.echo(f"{build_id} {version} is gone")


app.command("location")(models_location.location)


def _store() -> ModelStore:
    config = context.config()
    config.folders.create()
    return ModelStore(config.store_root)


def _in_use(store: ModelStore, one: StoredModel) -> bool:
    return store.in_use(one.manifest.model_id, one.manifest.version)


def _row(one: StoredModel) -> dict[str, object]:
    manifest = one.manifest
    return {
        "id": manifest.model_id,
        "version": manifest.version,
        "size_bytes": manifest.total_size_bytes,
        "weight_hash": manifest.aggregate_sha256,
        "identity_hash": manifest.identity_sha256,
        "directory": str(one.directory),
    }


def _progress(*, enabled: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not enabled,
        transient=True,
    )
