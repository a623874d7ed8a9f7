"""Tiny random models of each kind of attention, as folders that the loader reads."""

import json
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.utils import _get_classes

VOCABULARY: Final = 256
WINDOW: Final = 24
_COMMON: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
KINDS: Final[dict[str, dict[str, Any]]] = {
    "full": {
        **_COMMON,
        "model_type": "qwen3",
        "num_hidden_layers": 2,
        "head_dim": 8,
        "tie_word_embeddings": True,
    },
    "window": {
        **_COMMON,
        "model_type": "gemma3_text",
        "num_hidden_layers": 3,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 3,
    },
    "hybrid": {
        **_COMMON,
        "model_type": "lfm2",
        "num_hidden_layers": 3,
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 32,
        "block_ff_dim": 48,
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1],
    },
    "recurrent": {
        "model_type": "mamba2",
        "num_heads": 4,
        "head_dim": 16,
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "state_size": 8,
        "num_hidden_layers": 2,
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": True,
        "time_step_limit": [0.001, 0.1],
        "time_step_rank": 8,
        "max_position_embeddings": 512,
    },
}


def write_kind(folder: Path, kind: str, *, seed: int = 3) -> Path:
    """Write a model's configuration and its seeded random weights."""
    folder.mkdir(parents=True)
    config = KINDS[kind]
    (folder / "config.json").write_text(json.dumps(config))
    model_class, arguments = _get_classes(config)
    model = model_class(arguments.from_dict(config))
    keys = iter(mx.random.split(mx.random.key(seed), 1000))
    random: Any = tree_map(
        lambda value: value + mx.random.normal(value.shape, key=next(keys)) * 0.15,
        model.parameters(),
    )
    weights = dict(tree_flatten(random))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder
