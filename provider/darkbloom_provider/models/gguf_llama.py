"""The llama family in GGUF words and in MLX words: configuration, tensor names and shapes."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

from darkbloom_provider.models.errors import GgufError
from darkbloom_provider.models.gguf_file import TensorInfo, Value
from darkbloom_provider.models.gguf_metadata import integer, number, text

ARCHITECTURE: Final = "llama"
MAX_VOCABULARY: Final = 1 << 20

_LAYER_TENSORS: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LlamaShape:
    """The dimensions of a model, all checked to agree with each other."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    vocabulary: int
    rms_norm_eps: float
    rope_theta: float
    tied: bool
    """The output matrix is the embedding."""


def read_shape(metadata: Mapping[str, Value], tensors: Mapping[str, TensorInfo]) -> LlamaShape:
    """Read the dimensions and check that every tensor is there with the right shape.

    Raises:
        GgufError: Another architecture, a missing or surplus tensor, or dimensions that disagree.
    """
    if text(metadata, "general.architecture") != ARCHITECTURE:
        raise GgufError("only the llama architecture can be imported")
    if text(metadata, "llama.rope.scaling.type", "none") != "none":
        raise GgufError("rope scaling cannot be imported")
    if "llama.expert_count" in metadata:
        raise GgufError("mixtures of experts cannot be imported")

    hidden = integer(metadata, "llama.embedding_length", low=1, high=1 << 16)
    heads = integer(metadata, "llama.attention.head_count", low=1, high=1024)
    head_dim = integer(
        metadata, "llama.attention.key_length", low=1, high=1024, default=max(1, hidden // heads)
    )
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise GgufError("tensor token_embd.weight is missing")
    shape = LlamaShape(
        layers=integer(metadata, "llama.block_count", low=1, high=1024),
        hidden=hidden,
        intermediate=integer(metadata, "llama.feed_forward_length", low=1, high=1 << 20),
        heads=heads,
        kv_heads=integer(
            metadata, "llama.attention.head_count_kv", low=1, high=heads, default=heads
        ),
        head_dim=head_dim,
        context=integer(metadata, "llama.context_length", low=1, high=1 << 24),
        vocabulary=embedding.shape[0],
        rms_norm_eps=number(
            metadata, "llama.attention.layer_norm_rms_epsilon", low=1e-12, high=1e-1
        ),
        rope_theta=number(metadata, "llama.rope.freq_base", low=1, high=1e12, default=10_000.0),
        tied="output.weight" not in tensors,
    )
    _check(shape, metadata, tensors)
    return shape


def _check(
    shape: LlamaShape, metadata: Mapping[str, Value], tensors: Mapping[str, TensorInfo]
) -> None:
    if shape.vocabulary > MAX_VOCABULARY:
        raise GgufError("vocabulary is too large")
    if shape.heads % shape.kv_heads:
        raise GgufError("attention heads are not a multiple of key heads")
    if shape.head_dim % 2:
        raise GgufError("head dimension is odd")
    rotated = integer(
        metadata, "llama.rope.dimension_count", low=1, high=1024, default=shape.head_dim
    )
    if rotated != shape.head_dim:
        raise GgufError("partial rotation cannot be imported")

    expected = dict(_expected(shape))
    for name, extents in expected.items():
        info = tensors.get(name)
        if info is None:
            raise GgufError(f"tensor {name} is missing")
        if info.shape != extents:
            raise GgufError(f"tensor {name} has the wrong shape")
    if len(tensors) != len(expected):
        raise GgufError("file holds tensors that the architecture does not know")


def _expected(shape: LlamaShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (shape.vocabulary, shape.hidden)
    yield "output_norm.weight", (shape.hidden,)
    if not shape.tied:
        yield "output.weight", (shape.vocabulary, shape.hidden)

    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    extents: dict[str, tuple[int, ...]] = {
        "attn_norm": (shape.hidden,),
        "attn_q": (queries, shape.hidden),
        "attn_k": (keys, shape.hidden),
        "attn_v": (keys, shape.hidden),
        "attn_output": (shape.hidden, queries),
        "ffn_norm": (shape.hidden,),
        "ffn_gate": (shape.intermediate, shape.hidden),
        "ffn_up": (shape.intermediate, shape.hidden),
        "ffn_down": (shape.hidden, shape.intermediate),
    }
    for layer in range(shape.layers):
        for name, extent in extents.items():
            yield f"blk.{layer}.{name}.weight", extent


def mlx_name(name: str) -> str:
    """Translate a tensor name that `read_shape` accepted, without its `.weight` suffix."""
    stem = name.removesuffix(".weight")
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    if stem in top:
        return top[stem]
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_LAYER_TENSORS[part]}"


def mlx_config(shape: LlamaShape, *, quantised_bits: int | None) -> dict[str, Any]:
    """Give `config.json`.

    Args:
        shape: The dimensions.
        quantised_bits: Bits of the majority of quantised matrices; None for plain floats.
    """
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        # GGUF files hold q and k with interleaved pairs, which is MLX's traditional rotation.
        "rope_traditional": True,
        "tie_word_embeddings": shape.tied,
        "vocab_size": shape.vocabulary,
    }
    if quantised_bits is not None:
        config["quantization"] = {"group_size": 32, "bits": quantised_bits}
    return config
