"""Models in a store that have the files of one, and no weights that an engine could load."""

from datetime import UTC, datetime
from pathlib import Path

from darkbloom_provider.home import Home
from darkbloom_provider.models.directory import import_directory

_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"


def place_folder(home: Home, build: str, *, template: bool = True) -> Path:
    """Import a folder of files under the id `build` and return the store's root."""
    folder = home.root / f"source-{build.replace('/', '-')}"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    if template:
        (folder / "chat_template.jinja").write_text(_TEMPLATE)
    import_directory(
        folder,
        build_id=build,
        version="local",
        root=home.models,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        progress=lambda _done, _total: None,
    )
    return home.models
