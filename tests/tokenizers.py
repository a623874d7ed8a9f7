"""A small tokenizer made on the spot, and the manifest that names its bytes."""

import hashlib

from darkbloom_edge.manifest import FileRole, ManifestFile, build_manifest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

MARKERS = ["<|im_start|>", "<|im_end|>"]


def byte_level(words: str) -> str:
    """Return the JSON of a byte-level BPE tokenizer that knows these words."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=MARKERS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([words] * 4, trainer)
    return str(made.to_str())


def manifest_of(build: str, version: str, tokenizer: str) -> bytes:
    """Return the manifest of a version that is nothing but this tokenizer."""
    data = tokenizer.encode()
    file = ManifestFile(
        path="tokenizer.json",
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        role=FileRole.TOKENIZER,
    )
    return build_manifest(build, version, [file], "2026-01-01T00:00:00Z")
