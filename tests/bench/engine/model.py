"""The model of the benchmark: a llama of three million seeded random parameters that writes ASCII.

Only printable ASCII letters have embeddings; every other token's row is zero, so greedy answers
never hold bytes that a tokenizer would hold back, and never end early.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from darkbloom_provider.models.gguf_tokenizer import tokenizer_files

from tests.unit.provider.models import tiny_gguf

SEED = 20260101
HIDDEN, LAYERS, HEADS, KV_HEADS, FFN, VOCABULARY = 256, 4, 8, 2, 640, 1024
CONTEXT = 8192
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make(folder: Path, *, seed: int = SEED) -> Path:
    """Write a complete build as `mlx_lm` and our engine both read it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = tiny_gguf.metadata()
    for name, data in tokenizer_files(names, len(names["tokenizer.ggml.tokens"])).items():
        (folder / name).write_bytes(data)
    (folder / "chat_template.jinja").write_text(tiny_gguf.TEMPLATE)
    (folder / "config.json").write_text(json.dumps(_config()))
    _write_weights(folder / "model.safetensors", seed)
    return folder


def _config() -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "intermediate_size": FFN,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "eos_token_id": tiny_gguf.EOS,
        "torch_dtype": "float32",
    }


def _write_weights(path: Path, seed: int) -> None:
    # Imported here: the process that measures has no use for mlx.
    import mlx.core as mx

    draw = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> mx.array:
        return mx.array((draw.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32))

    embedding = draw.standard_normal((VOCABULARY, HIDDEN)).astype(np.float32)
    tokens = tiny_gguf.tokens()
    spoken = {tokens.index(letter) for letter in LETTERS}
    embedding[[index for index in range(VOCABULARY) if index not in spoken]] *= 0.0
    kv = KV_HEADS * HIDDEN // HEADS
    weights = {"model.embed_tokens.weight": mx.array(embedding), "model.norm.weight": _ones()}
    for layer in range(LAYERS):
        weights |= {
            f"model.layers.{layer}.{name}": value
            for name, value in {
                "input_layernorm.weight": _ones(),
                "post_attention_layernorm.weight": _ones(),
                "self_attn.q_proj.weight": matrix(HIDDEN, HIDDEN),
                "self_attn.k_proj.weight": matrix(kv, HIDDEN),
                "self_attn.v_proj.weight": matrix(kv, HIDDEN),
                "self_attn.o_proj.weight": matrix(HIDDEN, HIDDEN),
                "mlp.gate_proj.weight": matrix(FFN, HIDDEN),
                "mlp.up_proj.weight": matrix(FFN, HIDDEN),
                "mlp.down_proj.weight": matrix(HIDDEN, FFN),
            }.items()
        }
    mx.save_safetensors(str(path), weights, metadata={"format": "mlx"})


def _ones() -> Any:
    import mlx.core as mx

    return mx.ones(HIDDEN)
