"""Tokens to text and back, from plain files: no code that came with a model is ever run."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import tokenizers
from darkbloom_edge.chat_template.template import ChatTemplate, TemplateError

from darkbloom_provider.engine.template import read_template

MAX_TOKENIZER_BYTES: Final = 256 << 20
MAX_CONFIG_BYTES: Final = 4 << 20
REPLACEMENT: Final = "\ufffd"
_MARKER: Final = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]")
_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
_WORD_MARK: Final = "\u2581"
"""How vocabularies that are not byte-level write a space."""
_MAX_HELD_TOKENS: Final = 8
"""A character has four bytes; what is incomplete for longer will never be complete."""


def _byte_level_alphabet() -> dict[str, int]:
    """Give the byte behind each character of byte-level vocabularies (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(0x100) if byte not in printable]
    shifted = {chr(0x100 + index): byte for index, byte in enumerate(rest)}
    return {chr(byte): byte for byte in printable} | shifted


_BYTE_OF_CHAR: Final = _byte_level_alphabet()


class TokenizerError(Exception):
    """The tokenizer files of a build are missing or malformed."""


class Tokenizer:
    """The tokenizer of one build with its chat template and its end-of-turn tokens."""

    def __init__(
        self,
        native: tokenizers.Tokenizer,
        *,
        end_tokens: frozenset[int],
        template: ChatTemplate | None,
        variables: dict[str, str],
        model_type: str = "",
    ) -> None:
        self._native = native
        # It may stand alone or in a sequence.
        self._byte_level = "ByteLevel" in repr(native.decoder)
        added = native.get_added_tokens_decoder()
        self._markers = {token.content: number for number, token in added.items()}
        self.control_tokens = frozenset(
            number
            for number, token in added.items()
            if token.special or _MARKER.fullmatch(token.content)
        )
        """Tokens that steer and are never plain text: special ones, and those shaped like tags."""
        self.model_type = model_type
        """From `config.json`; empty where it says none."""
        self.end_tokens = end_tokens
        self.template = template
        self.variables = variables
        """Names of special tokens that a template may use, such as `bos_token`."""

    @classmethod
    def read(cls, directory: Path) -> "Tokenizer":
        """Read the tokenizer of a build.

        Raises:
            TokenizerError: A file is missing or malformed.
        """
        document = _read(directory / "tokenizer.json", MAX_TOKENIZER_BYTES)
        try:
            native = tokenizers.Tokenizer.from_str(document)
        except Exception as error:
            raise TokenizerError("tokenizer.json cannot be used") from error
        native.no_truncation()
        native.no_padding()

        config = _read_object(directory / "tokenizer_config.json")
        generation = _read_object(directory / "generation_config.json")
        model = _read_object(directory / "config.json")
        for file, said in (("config.json", model), ("tokenizer_config.json", config)):
            _refuse_code(file, said)
        names = {
            key: name
            for key in ("bos_token", "eos_token", "unk_token", "pad_token")
            if (name := _token_name(config.get(key))) is not None
        }
        end_tokens = {
            *_ids(generation.get("eos_token_id")),
            *_ids(model.get("eos_token_id")),
            *_ids(native.token_to_id(names["eos_token"]) if "eos_token" in names else None),
        }
        return cls(
            native,
            end_tokens=frozenset(end_tokens),
            template=_template(directory),
            variables=names,
            model_type=str(model.get("model_type", "")),
        )

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self._native.get_vocab_size(with_added_tokens=True))

    def has_token(self, name: str) -> bool:
        """Tell whether the vocabulary holds this token."""
        return self._native.token_to_id(name) is not None

    def marker(self, name: str) -> int | None:
        """Give the added token that is exactly this text, where there is one."""
        return self._markers.get(name)

    def encode(self, text: str) -> list[int]:
        """Give the tokens of rendered text; special tokens in it count as such."""
        return list(self._native.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Give the text of tokens without special ones."""
        return str(self._native.decode(list(tokens), skip_special_tokens=True))

    def token_text(self, token: int) -> str:
        """Give the text of one token, special or not; incomplete characters are replaced."""
        return str(self._native.decode([token], skip_special_tokens=False))

    def token_bytes(self, token: int) -> bytes:
        """Give the exact bytes of one token, which need not be whole characters."""
        name = self._native.id_to_token(token)
        if name is None:
            return b""
        if self._byte_level and all(char in _BYTE_OF_CHAR for char in name):
            return bytes(_BYTE_OF_CHAR[char] for char in name)
        if token in self._markers.values():
            return name.encode()
        byte = _BYTE_TOKEN.fullmatch(name)
        if byte is not None:
            return bytes.fromhex(byte.group(1))
        return name.replace(_WORD_MARK, " ").encode()


class TextStream:
    """Turns the tokens of one row into text; never gives half a character."""

    def __init__(self, tokenizer: Tokenizer, seen: Iterable[str] = ()) -> None:
        """Begin.

        Args:
            tokenizer: Of the build.
            seen: Special tokens whose text counts; others have none.
        """
        self._tokenizer = tokenizer
        self._seen = {token: name for name in seen if (token := tokenizer.marker(name)) is not None}
        self._tokens: list[int] = []
        """A short tail of what was given, for context, and then what is held."""
        self._given = 0
        """How many of the tail's tokens have been given as text."""

    def push(self, token: int) -> str:
        """Take the next token and give the text that is now certain."""
        if token in self._seen:
            return self.finish() + self._seen[token]
        self._tokens.append(token)
        before = self._tokenizer.decode(self._tokens[: self._given])
        text = self._tokenizer.decode(self._tokens)
        held = len(self._tokens) - self._given
        if text.endswith(REPLACEMENT) and held < _MAX_HELD_TOKENS:
            return ""
        # Only what was just given stays as context: decoders look at one neighbour.
        self._tokens = self._tokens[self._given :]
        self._given = len(self._tokens)
        return text[len(before) :]

    def finish(self) -> str:
        """Give what is still held, without a character that was cut off."""
        before = self._tokenizer.decode(self._tokens[: self._given])
        text = self._tokenizer.decode(self._tokens)
        self._tokens = []
        self._given = 0
        return text[len(before) :].rstrip(REPLACEMENT)


def _template(directory: Path) -> ChatTemplate | None:
    try:
        return read_template(directory)
    except TemplateError as error:
        raise TokenizerError("chat template cannot be used") from error


def _refuse_code(name: str, document: dict[str, Any]) -> None:
    """Refuse a build that wants to run code of its own.

    Raises:
        TokenizerError: It names such code.
    """
    if document.get("auto_map"):
        raise TokenizerError(f"build brings code of its own, auto_map in {name}")
    if document.get("trust_remote_code"):
        raise TokenizerError(f"build brings code of its own, trust_remote_code in {name}")


def _token_name(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _ids(value: object) -> list[int]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, int) and not isinstance(item, bool)]


def _read_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        document = json.loads(_read(path, MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path.name} is not valid JSON") from error
    if not isinstance(document, dict):
        raise TokenizerError(f"{path.name} is not an object")
    return document


def _read(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise TokenizerError(f"{path.name} is too large")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path.name} cannot be read") from error
