"""A mesh whose one model is tiny and random: it would never write JSON by itself."""

from collections.abc import Mapping
from pathlib import Path

import openai
from darkbloom_local.mesh import Mesh

from tests.unit.provider.models import tiny_gguf

_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""What the local mesh looks for before it downloads."""
CONTEXT = 4096


def random_model_cache(folder: Path, seed: int) -> Path:
    """Write a random model where the local mesh finds its development model; give the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    values = tiny_gguf.metadata(**{"llama.context_length": CONTEXT})
    arrays = tiny_gguf.weights(seed)
    (folder / _NAME).write_bytes(tiny_gguf.gguf_bytes(values=values, arrays=arrays))
    return folder


def mesh_of(
    state: Path, cache: Path, environment: Mapping[str, Mapping[str, str]] | None = None
) -> Mesh:
    """Make a mesh with the engine for real models."""
    return Mesh(state, engine="mlx", cache=cache, environment=environment, durable=False)


def client_of(mesh: Mesh) -> openai.AsyncOpenAI:
    """Make a client that never asks twice."""
    return openai.AsyncOpenAI(
        base_url=f"{mesh.url}/v1", api_key=mesh.api_key, max_retries=0, timeout=300.0
    )
