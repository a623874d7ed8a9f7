"""`darkbloom models location`: where the store is, whether a folder would do, and moving it."""

import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from darkbloom_provider import file_edit
from darkbloom_provider.cli import context
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.models.store import ModelStore

KEY = "backend.models_dir"
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def location(
    path: Annotated[Path | None, typer.Argument(help="Keep models here from now on.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only try whether it would do.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Back to the usual place.")] = False,
    json_: Json = False,
) -> int:
    """Show where models are, or choose another folder; nothing is moved.

    Move the folder yourself while the agent is stopped: docs/models.md says how.
    """
    if reset and (path is not None or check):
        raise typer.BadParameter("--reset stands alone")
    if reset:
        file_edit.edit(context.config_path(), {KEY: None})
        return _show(json_)
    if path is None and not check:
        return _show(json_)
    folder = path.expanduser().absolute() if path is not None else context.config().store_root
    problem = _problem(folder)
    if check:
        _say(json_, {"path": str(folder), "ok": not problem, "problem": problem})
        return 1 if problem else 0
    if problem:
        raise ProviderError(
            f"{folder} cannot hold models, {problem}", "choose a folder on a disk of this machine"
        )
    file_edit.edit(context.config_path(), {KEY: str(folder)})
    return _show(json_)


def _show(json_: bool) -> int:
    config = context.config()
    root = config.store_root
    stored = ModelStore(root).list()
    # A store that is not there yet has the room of the folder that will hold it.
    near = next((one for one in (root, *root.parents) if one.exists()), Path("/"))
    facts = {
        "path": str(root),
        "source": context.settings().sources["models_dir"],
        "models": len(stored),
        "size_bytes": sum(one.manifest.total_size_bytes for one in stored),
        "free_bytes": shutil.disk_usage(near).free,
    }
    if json_:
        typer.echo(json.dumps(facts))
        return 0
    typer.echo(
        f"{root}: {len(stored)} versions, {int(str(facts['size_bytes'])) / 1e9:,.1f} GB,"
        f" {int(str(facts['free_bytes'])) / 1e9:,.1f} GB free"
    )
    return 0


def _say(json_: bool, facts: dict[str, object]) -> None:
    if json_:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{facts['path']}: {facts['problem'] or 'ok'}")


def _problem(folder: Path) -> str:
    """Try what the store does: write, lock, link, rename; empty where all of it works."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".trial-") as name:
            trial = Path(name)
            (trial / "a").write_bytes(b"x")
            with (trial / "a").open("rb") as file:
                os.fsync(file.fileno())
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (trial / "folder").mkdir()
            (trial / "folder").rename(trial / "moved")
    except OSError as error:
        return error.strerror or type(error).__name__
    finally:
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return ""
