"""The tiny random model: a GGUF file that goes through the real import."""

from datetime import UTC, datetime
from pathlib import Path

from darkbloom_provider.models.gguf import WeightType, import_gguf
from darkbloom_provider.models.store import ModelStore, StoredModel

from tests.unit.provider.models import tiny_gguf

BUILD_ID = "org/tiny"


def import_tiny(
    folder: Path,
    *,
    kind: str = "F32",
    dtype: WeightType = WeightType.FLOAT32,
    context: int = tiny_gguf.CONTEXT,
) -> StoredModel:
    path = folder / f"{kind}.gguf"
    values = tiny_gguf.metadata(**{"llama.context_length": context})
    path.write_bytes(tiny_gguf.gguf_bytes(kind=kind, values=values))
    import_gguf(
        path,
        build_id=BUILD_ID,
        version="r1",
        root=folder / "store",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        dtype=dtype,
    )
    return ModelStore(folder / "store").get(BUILD_ID)
