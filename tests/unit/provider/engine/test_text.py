"""Tokenizer, template and prompt: exact text, no half characters, no content in errors."""

import itertools
import traceback
from pathlib import Path
from typing import Any

import pytest
from darkbloom_edge.chat_template.template import ChatTemplate, TemplateError
from darkbloom_provider.engine.errors import EngineError, ErrorReason, FailureCode
from darkbloom_provider.engine.prompt import Prompt, prepare
from darkbloom_provider.engine.tokenizer import TextStream, Tokenizer, TokenizerError
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.provider.engine.support import job, tiny_tokenizer, write_tokenizer
from tests.unit.provider.models import tiny_gguf

TOKENIZER = tiny_tokenizer()
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
CANARY = "canary-7f3a"


def prompt_of(tokenizer: Tokenizer = TOKENIZER, context: int = 512, **fields: Any) -> Prompt:
    return prepare(job(**fields), tokenizer, context=context, drawn_seed=5)


def refusal_of(tokenizer: Tokenizer = TOKENIZER, **fields: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        prompt_of(tokenizer, **fields)
    return caught.value


@given(st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=60))
def test_streamed_text_is_the_whole_text(text: str) -> None:
    tokens = TOKENIZER.encode(text)
    stream = TextStream(TOKENIZER)

    streamed = "".join(stream.push(token) for token in tokens) + stream.finish()

    assert streamed == text.rstrip("\ufffd")


@given(
    st.text(
        st.characters(codec="utf-8", min_codepoint=0x80, exclude_characters="\ufffd"), min_size=1
    )
)
def test_no_piece_holds_half_a_character(text: str) -> None:
    stream = TextStream(TOKENIZER)

    assert all("\ufffd" not in stream.push(token) for token in TOKENIZER.encode(text))


def test_bytes_that_never_become_a_character_are_not_held_for_ever() -> None:
    alphabet = tiny_gguf.tokens()
    broken = alphabet.index(tiny_gguf.byte_alphabet()[-1])
    stream = TextStream(TOKENIZER)

    assert any(stream.push(broken) for _ in range(12))


def test_a_character_that_was_cut_off_is_dropped_at_the_end() -> None:
    first, *_ = TOKENIZER.encode("é")
    stream = TextStream(TOKENIZER)

    assert stream.push(first) + stream.finish() == ""


def test_special_tokens_have_no_text_and_every_token_has_bytes() -> None:
    stream = TextStream(TOKENIZER)

    assert stream.push(tiny_gguf.EOS) == ""
    assert (
        b"".join(TOKENIZER.token_bytes(t) for t in TOKENIZER.encode("hello é"))
        == "hello é".encode()
    )
    assert TOKENIZER.token_bytes(tiny_gguf.EOS) == b"<|im_end|>"
    assert TOKENIZER.token_bytes(10**6) == b""


def test_a_tokenizer_is_read_from_plain_files(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)

    tokenizer = Tokenizer.read(tmp_path)

    assert tokenizer.end_tokens == {0, tiny_gguf.EOS}
    assert tokenizer.template is not None
    assert tokenizer.variables["eos_token"] == "<|im_end|>"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *itertools.product(
            ("tokenizer.json", "tokenizer_config.json"), (b"\xff", b"{", b"{}x", b"[" * 100_000)
        ),
        ("chat_template.jinja", b"\xff"),
        ("chat_template.jinja", b"{% if"),
    ],
)
def test_broken_tokenizer_files_are_a_clear_error(tmp_path: Path, name: str, data: bytes) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / name).write_bytes(data)

    with pytest.raises(TokenizerError):
        Tokenizer.read(tmp_path)


def test_a_template_cannot_leave_its_sandbox() -> None:
    escape = ChatTemplate("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    change = ChatTemplate("{{ messages.append(1) }}")

    for template in (escape, change):
        with pytest.raises(TemplateError):
            template.render([{"role": "user", "content": "x"}])


def test_a_template_has_bounds() -> None:
    with pytest.raises(TemplateError, match="too long"):
        ChatTemplate("x" * (1 << 20) + "y")
    huge = ChatTemplate("{% for i in range(90000) %}{{ messages[0].content }}{% endfor %}")
    with pytest.raises(TemplateError):
        huge.render([{"role": "user", "content": "x" * 1000}])


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception(messages[0].content) }}",
        "{{ messages[0].content.missing.again }}",
        "{{ messages[0].content | int(base=99) + [] }}",
        "{{ messages[0][messages[0].content]() }}",
    ],
)
def test_errors_of_a_template_never_hold_content(source: str) -> None:
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(source).render([{"role": "user", "content": CANARY}])

    chain = caught.value, caught.value.__cause__
    assert not any(CANARY in str(error) for error in chain)
    assert CANARY not in repr(prompt_of(text=CANARY))


def test_a_prompt_is_rendered_and_counted_exactly() -> None:
    prompt = prompt_of(text="hello")

    rendered = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.tokens == TOKENIZER.encode(rendered)
    assert prompt.max_tokens == 32


def test_the_least_of_request_bound_and_context_limits_the_output() -> None:
    size = len(prompt_of().tokens)

    assert prompt_of(output_bound=7).max_tokens == 7
    assert prompt_of(context=size + 3).max_tokens == 3


def test_a_prompt_over_its_bound_is_refused() -> None:
    size = len(prompt_of().tokens)

    assert prompt_of(prompt_bound=size)
    error = refusal_of(prompt_bound=size - 1)
    assert (error.code, error.reason) == (FailureCode.INVALID_REQUEST, ErrorReason.BOUND_EXCEEDED)


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    size = len(prompt_of().tokens)

    assert refusal_of(context=size).reason is ErrorReason.REQUEST_EXCEEDS_CONTEXT


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -1.0},
        {"temperature": 11.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -7},
        {"min_p": 2.0},
        {"frequency_penalty": 3.0},
        {"repetition_penalty": 0.0},
        {"logit_bias": {"1": 500.0}},
        {"stop": ["x"] * 17},
        {"stop": ["x" * 2000]},
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"prompt_date": "2026-13-45"},
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, Any]) -> None:
    error = refusal_of(**fields)

    assert (error.code, error.status) == (FailureCode.INVALID_REQUEST, 400)


def test_biases_that_name_no_token_are_dropped() -> None:
    prompt = prompt_of(logit_bias={"3": 1.0, "999999": 1.0, "x": 1.0, "²": 1.0})

    assert prompt.sampling.logit_bias == {3: 1.0}


def test_a_named_tool_is_the_only_one_offered_and_is_required() -> None:
    tokenizer = tiny_tokenizer("{{ tools | tojson if tools }}{{ messages[0].content }}")
    other = {"type": "function", "function": {"name": "g", "parameters": {}}}
    choice = {"type": "function", "function": {"name": "g"}}

    prompt = prompt_of(tokenizer, tools=[TOOL, other], tool_choice=choice)

    assert prompt.tools_required
    assert '"f"' not in tokenizer.decode(prompt.tokens)
    missing = {"type": "function", "function": {"name": "h"}}
    assert refusal_of(tokenizer, tools=[TOOL], tool_choice=missing).status == 400


def test_text_that_is_not_unicode_is_refused() -> None:
    assert refusal_of(text="\ud800").status == 400


def test_a_build_without_a_template_cannot_chat() -> None:
    error = refusal_of(tiny_tokenizer(None))

    assert (error.code, error.status) == (FailureCode.TEMPLATE_RENDER, 422)


def test_the_date_of_the_prompt_is_that_of_the_request() -> None:
    tokenizer = tiny_tokenizer("{{ strftime_now('%d.%m.%Y') }}")

    prompt = prompt_of(tokenizer, prompt_date="2026-03-04")

    assert tokenizer.decode(prompt.tokens) == "04.03.2026"


def test_no_error_of_a_prompt_shows_it() -> None:
    error = refusal_of(tiny_tokenizer("{{ raise_exception(messages[0].content) }}"), text=CANARY)

    assert CANARY not in "".join(traceback.format_exception_only(error))
    assert error.reason is ErrorReason.JINJA_TEMPLATE
