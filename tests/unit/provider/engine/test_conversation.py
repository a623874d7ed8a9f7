"""What a template is told, and which bytes a vocabulary's tokens are."""

import json
from typing import Any

import pytest
import tokenizers
from darkbloom_edge.chat_template.template import ChatTemplate
from darkbloom_edge.request import prompt_bound_of
from darkbloom_provider.engine.constraint import GrammarCompiler
from darkbloom_provider.engine.grammar import answer_grammar
from darkbloom_provider.engine.prompt import prepare
from darkbloom_provider.engine.tokenizer import TextStream, Tokenizer
from tokenizers import decoders, models

from tests.unit.provider.engine.support import job, request, tiny_tokenizer

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
FORMAT: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "go"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_0123456789abcdef01234567",
                "type": "function",
                "function": {"name": "f", "arguments": '{"a": 1}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_0123456789abcdef01234567", "content": "done"},
]
CHATML = tiny_tokenizer()


def prompt_text(tokenizer: Tokenizer, **fields: Any) -> str:
    prompt = prepare(job(prompt_bound=9000, **fields), tokenizer, context=10_000, drawn_seed=1)
    return "".join(tokenizer.token_text(token) for token in prompt.tokens)


def speaking(template: str, model_type: str = "") -> Tokenizer:
    tokenizer = tiny_tokenizer(template)
    tokenizer.model_type = model_type
    return tokenizer


def test_a_template_without_tools_is_told_of_them_in_words() -> None:
    text = prompt_text(CHATML, messages=CALLED, tools=[TOOL])

    assert "<|im_start|>system\nYou can call these functions" in text
    assert '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>' in text
    assert "<tool_response>\ndone\n</tool_response>" in text
    assert "None" not in text


def test_the_schema_is_told_in_words() -> None:
    text = prompt_text(CHATML, response_format=FORMAT)

    assert json.dumps(SCHEMA, separators=(",", ":")) in text
    assert "one JSON object" in prompt_text(CHATML, response_format={"type": "json_object"})


def test_a_template_that_knows_no_system_message_is_told_by_the_user() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}{% endfor %}"
    )
    text = prompt_text(speaking(template), response_format={"type": "json_object"})

    assert text == "user: hi\n\nAnswer with one JSON object."


def test_earlier_arguments_are_objects_for_the_template() -> None:
    template = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.id }} "
        "{{ c.function.arguments.a + 1 }}{% endfor %}{{ m.tool_call_id }}{% endfor %}"
        "{{ tools | length }}"
    )
    plain = prompt_text(speaking(template), messages=CALLED, tools=[TOOL])
    mistral = prompt_text(speaking(template, "mistral3"), messages=CALLED, tools=[TOOL])

    assert plain == "call_0123456789abcdef01234567 2call_0123456789abcdef012345671"
    short, rest = mistral.split(" ")
    assert len(short) == 9
    assert rest == f"2{short}1"


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": FORMAT},
        {"response_format": {"type": "json_object"}},
        {"tools": [TOOL]},
        {"messages": CALLED, "tools": [TOOL], "response_format": FORMAT},
    ],
)
def test_what_is_told_in_words_stays_within_the_bound_of_the_prompt(fields: dict[str, Any]) -> None:
    asked = request(**fields)
    bound = prompt_bound_of(asked.messages, asked.tools, asked.response_format)

    assert len(prompt_text(CHATML, **fields).encode()) <= bound


def byte_fallback() -> Tokenizer:
    """Make a vocabulary of words with marks for spaces, and of single bytes for the rest."""
    words = ["<unk>", "</s>", "\u2581", '{"', "a", '":', "\u25811", "}", "1", '"', ":", "{"]
    vocabulary = {word: number for number, word in enumerate(words)}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    native = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    native.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    native.add_special_tokens(["</s>"])
    return Tokenizer(native, end_tokens=frozenset({1}), template=ChatTemplate("x"), variables={})


def test_tokens_of_byte_fallback_vocabularies_have_their_exact_bytes() -> None:
    tokenizer = byte_fallback()

    assert tokenizer.token_bytes(6) == b" 1"
    assert tokenizer.token_bytes(12 + 0xC3) == b"\xc3"
    assert tokenizer.token_bytes(1) == b"</s>"


def test_a_grammar_holds_on_a_byte_fallback_vocabulary() -> None:
    tokenizer = byte_fallback()
    schema = {"type": "object", "properties": {"a": {"enum": [1, "é"]}}, "required": ["a"]}
    grammar = answer_grammar(schema=schema, marker=tokenizer.marker)
    compiler = GrammarCompiler(tokenizer)
    for text in ('{"a": 1}', '{"a": "é"}'):
        constraint, stream, last = compiler.compile(grammar), TextStream(tokenizer), 0
        written = ""
        for place, token in enumerate(tokenizer.encode(text)):
            mask = constraint.allowed(place, last)
            assert mask is not None
            assert mask[token >> 3] >> (token & 7) & 1
            written += stream.push(token)
            last = token
        assert written + stream.finish() == text
