"""Rebuild `tokenizer.json` from GGUF metadata: byte-level BPE with the pre-tokenizer it names."""

import json
from collections.abc import Mapping
from typing import Any, Final

from darkbloom_provider.models.errors import GgufError
from darkbloom_provider.models.gguf_file import Value
from darkbloom_provider.models.gguf_metadata import flag, integer, integers, text, texts

_CONTROL: Final = 3
_USER_DEFINED: Final = 4

_BYTE_LEVEL: Final = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
_LLAMA_3_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE_TOKENIZERS: Final[Mapping[str, list[dict[str, Any]]]] = {
    "default": [_BYTE_LEVEL],
    "gpt-2": [_BYTE_LEVEL],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
    "llama-bpe": [
        {
            "type": "Split",
            "pattern": {"Regex": _LLAMA_3_SPLIT},
            "behavior": "Isolated",
            "invert": False,
        },
        {**_BYTE_LEVEL, "use_regex": False},
    ],
}


def tokenizer_files(metadata: Mapping[str, Value], vocabulary: int) -> dict[str, bytes]:
    """Give the tokenizer's files by name: tokenizer, its configuration, generation configuration.

    Args:
        metadata: Of the GGUF file.
        vocabulary: Rows of the embedding; the tokens must be as many.

    Raises:
        GgufError: Another kind of tokenizer, or lists that disagree.
    """
    if text(metadata, "tokenizer.ggml.model") != "gpt2":
        raise GgufError("only byte-level BPE tokenizers can be imported")
    tokens = texts(metadata, "tokenizer.ggml.tokens")
    kinds = integers(metadata, "tokenizer.ggml.token_type")
    if not len(tokens) == len(kinds) == vocabulary:
        raise GgufError("tokens, token types and embedding differ in length")
    if "" in tokens:
        raise GgufError("a token is empty")
    ids = {token: index for index, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise GgufError("a token occurs twice")

    bos = _token(metadata, "tokenizer.ggml.bos_token_id", tokens)
    eos = _token(metadata, "tokenizer.ggml.eos_token_id", tokens)
    if eos is None:
        raise GgufError("metadata tokenizer.ggml.eos_token_id is missing")
    adds_bos = flag(metadata, "tokenizer.ggml.add_bos_token", default=False)
    ends = sorted({ids[eos], *(ids[name] for name in _TURN_ENDS if name in ids)})
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "add_bos_token": adds_bos and bos is not None,
        "model_max_length": integer(metadata, "llama.context_length", low=1, high=1 << 24),
    } | ({} if bos is None else {"bos_token": bos})
    generation = {"eos_token_id": ends} | ({} if bos is None else {"bos_token_id": ids[bos]})

    return {
        "tokenizer.json": _compact(_tokenizer(metadata, tokens, kinds, ids)),
        "tokenizer_config.json": _compact(config),
        "generation_config.json": _compact(generation),
    }


_TURN_ENDS: Final = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>")
"""Tokens that end a turn wherever they are in a vocabulary, beside the one the file names."""


def _tokenizer(
    metadata: Mapping[str, Value], tokens: list[str], kinds: list[int], ids: Mapping[str, int]
) -> dict[str, Any]:
    name = text(metadata, "tokenizer.ggml.pre", "default")
    pre_tokenizers = _PRE_TOKENIZERS.get(name)
    if pre_tokenizers is None:
        raise GgufError("the file names an unknown pre-tokenizer")
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in {_CONTROL, _USER_DEFINED}
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizers},
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": dict(ids),
            "merges": _merges(metadata, ids),
        },
    }


def _merges(metadata: Mapping[str, Value], ids: Mapping[str, int]) -> list[list[str]]:
    merges = []
    for merge in texts(metadata, "tokenizer.ggml.merges"):
        left, _, right = merge.partition(" ")
        # The native tokenizer trusts this, so it is proven here.
        if left not in ids or right not in ids or left + right not in ids:
            raise GgufError("a merge names tokens outside the vocabulary")
        merges.append([left, right])
    return merges


def _token(metadata: Mapping[str, Value], key: str, tokens: list[str]) -> str | None:
    if key not in metadata:
        return None
    return tokens[integer(metadata, key, low=0, high=len(tokens) - 1)]


def _compact(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
