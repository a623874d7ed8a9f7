"""Writes small but complete GGUF files of the llama family, with weights from a fixed seed."""

import struct
from typing import Any

import numpy as np

HIDDEN = 64
FFN = 96
HEADS = 4
KV_HEADS = 2
LAYERS = 2
CONTEXT = 512
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EOS = 2
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld")
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_U32, _F32, _BOOL, _STRING, _ARRAY, _I32 = 4, 6, 7, 8, 9, 5


def byte_alphabet() -> list[str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(0x100) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(len(rest))]


def tokens() -> list[str]:
    return [*SPECIAL, *byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES)]


def metadata(**changes: Any) -> dict[str, Any]:
    names = tokens()
    values: dict[str, Any] = {
        "general.architecture": "llama",
        "general.alignment": 32,
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": HIDDEN // HEADS,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(names) - len(SPECIAL)),
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": EOS,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    values.update(changes)
    return {key: value for key, value in values.items() if value is not None}


def weights(seed: int = 7) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return (draw.standard_normal(shape) * 0.25).astype(np.float32)

    vocabulary, kv = len(tokens()), KV_HEADS * HIDDEN // HEADS
    made = {"token_embd.weight": matrix(vocabulary, HIDDEN), "output_norm.weight": np.ones(HIDDEN)}
    for layer in range(LAYERS):
        made |= {
            f"blk.{layer}.attn_norm.weight": np.ones(HIDDEN),
            f"blk.{layer}.attn_q.weight": matrix(HIDDEN, HIDDEN),
            f"blk.{layer}.attn_k.weight": matrix(kv, HIDDEN),
            f"blk.{layer}.attn_v.weight": matrix(kv, HIDDEN),
            f"blk.{layer}.attn_output.weight": matrix(HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_norm.weight": np.ones(HIDDEN),
            f"blk.{layer}.ffn_gate.weight": matrix(FFN, HIDDEN),
            f"blk.{layer}.ffn_up.weight": matrix(FFN, HIDDEN),
            f"blk.{layer}.ffn_down.weight": matrix(HIDDEN, FFN),
        }
    return made


def pack(values: np.ndarray, kind: str) -> bytes:
    """Pack a tensor the way llama.cpp does."""
    if kind == "F32":
        return values.astype("<f4").tobytes()
    if kind == "F16":
        return values.astype("<f2").tobytes()
    if kind == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    groups = values.reshape(-1, 32).astype(np.float32)
    if kind == "Q8_0":
        scale = (np.abs(groups).max(axis=1) / 127).astype("<f2")
        levels = np.clip(np.rint(groups / np.maximum(scale[:, None], 1e-6)), -127, 127)
        return b"".join(
            s.tobytes() + row.astype(np.int8).tobytes()
            for s, row in zip(scale, levels, strict=True)
        )
    low, high = groups.min(axis=1), groups.max(axis=1)
    if kind == "Q4_0":
        scale = (np.abs(groups).max(axis=1) / 7).astype("<f2")
        levels = np.clip(np.rint(groups / np.maximum(scale[:, None], 1e-6)) + 8, 0, 15)
        heads = [s.tobytes() for s in scale]
    else:
        scale = ((high - low) / 15).astype("<f2")
        minimum = low.astype("<f2")
        offset = groups - minimum[:, None]
        levels = np.clip(np.rint(offset / np.maximum(scale[:, None], 1e-6)), 0, 15)
        heads = [s.tobytes() + m.tobytes() for s, m in zip(scale, minimum, strict=True)]
    nibbles = levels.astype(np.uint8)
    packed = nibbles[:, :16] | (nibbles[:, 16:] << 4)
    return b"".join(head + row.tobytes() for head, row in zip(heads, packed, strict=True))


TYPE_NUMBERS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "BF16": 30}


def gguf_bytes(
    *,
    kind: str = "F32",
    values: dict[str, Any] | None = None,
    arrays: dict[str, np.ndarray] | None = None,
) -> bytes:
    """Give a whole file; matrices are packed as `kind`, vectors as F32."""
    values = metadata() if values is None else values
    arrays = weights() if arrays is None else arrays
    header = b"GGUF" + struct.pack("<IQQ", 3, len(arrays), len(values))
    for key, value in values.items():
        header += _string(key) + _value(value)

    data = b""
    for name, array in arrays.items():
        type_name = kind if array.ndim == 2 else "F32"
        packed = pack(array, type_name)
        header += _string(name) + struct.pack("<I", array.ndim)
        header += b"".join(struct.pack("<Q", extent) for extent in reversed(array.shape))
        header += struct.pack("<IQ", TYPE_NUMBERS[type_name], len(data))
        data += packed + b"\0" * (-len(packed) % 32)
    return header + b"\0" * (-len(header) % 32) + data


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<IB", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    kind = _STRING if value and isinstance(value[0], str) else _I32
    items = b"".join(_string(v) if kind == _STRING else struct.pack("<i", v) for v in value)
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + items
