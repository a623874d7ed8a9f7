"""A template may do what chat templates do, and nothing without end."""

from pathlib import Path
from typing import Any

import pytest
from darkbloom_edge.chat_template.template import ChatTemplate, TemplateError
from darkbloom_provider.engine.template import examine, read_template
from darkbloom_provider.engine.tokenizer import Tokenizer, TokenizerError

from tests.unit.provider.engine.support import write_tokenizer

DOUBLING = (
    "{{% set ns = namespace(x={start}) %}}"
    "{{% for i in range(90) %}}{{% set ns.x = {step} %}}{{% endfor %}}{use}"
)
ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{% for a in range(99999) %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}",
    "{{ lipsum(n=10000000) }}",
]
HUGE = [
    "{{ 'a' * 1000000000 }}",
    "{{ 10 ** 1000000 }}",
    "{{ '%1000000000d' % 5 }}",
    "{{ '{:>1000000000}'.format(5) }}",
    "{{ 'a'.ljust(10000000000) }}",
    "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
    "{{ range(99999) | list | join('x' * 100000) }}",
    "{{ 'a' | indent(1000000000) }}",
    "{{ 'a' | center(1000000000) }}",
    DOUBLING.format(start="'ab'", step="ns.x ~ ns.x", use=""),
    DOUBLING.format(start="'ab'", step="ns.x + ns.x", use=""),
    DOUBLING.format(start="[1]", step="ns.x + ns.x", use=""),
    DOUBLING.format(start="[1]", step="[ns.x, ns.x]", use="{{ ns.x }}"),
    DOUBLING.format(start="1", step="(ns.x, ns.x)", use="{{ ns.x == 1 }}"),
    DOUBLING.format(start="1", step="{1: ns.x, 2: ns.x}", use="{{ ns.x | tojson }}"),
    DOUBLING.format(start="1", step="namespace(a=ns.x, b=ns.x)", use="{{ ns.x }}"),
    DOUBLING.format(start="3", step="ns.x * ns.x", use=""),
    "{{ [1] | tojson(indent=20000000000) }}",
    "{{ [1] | tojson(indent='x' * 10000000) }}",
    "{% set s = 'x' * 30000000 %}{{ [s] * 2000 }}",
    "{% set s = 'x' * 30000000 %}{{ ([s] * 2000) | tojson }}",
    "{% set s = 'x' * 30000000 %}{{ ([s] * 2000) | string }}",
    "{% set s = 'x' * 30000000 %}{{ ((s,) * 2000) | upper }}",
    "{{ [messages, 'x' * 30000000, 'y' * 30000000] }}",
    "{{ ([[1] * 1000] * 100000) | sum(start=[]) }}",
    "{% set n = ('f' * 200000) | int(base=16) %}{{ n % n }}",
    "{% set n = ('f' * 4000) | int(base=16) %}{{ n % 7 }}",
    "{% set n = ('f' * 4000) | int(base=16) %}{{ n // 7 }}",
    "{% set n = ('f' * 4000) | int(base=16) %}{{ n - 7 }}",
    "{% set n = ('f' * 4000) | int(base=16) %}{{ n is divisibleby(7) }}",
    "{{ 1 | round(100000, 'ceil') }}",
    "{{ 1 | round(-100000) }}",
    "{{ (5).to_bytes(100000, 'big') }}",
    "{{ (5).from_bytes([1]) }}",
    "{{ 'x'.encode().ljust(100000) }}",
    "{{ ('x ' * 200000).split() | length }}",
    "{{ ('x,' * 200000).split(',') | length }}",
    "{{ ('x\n' * 200000).splitlines() | length }}",
    "{{ ('x' * 200000) | list | length }}",
    "{{ ('x' * 200000) | sort | length }}",
    "{{ ('x ' * 100000) | title | length }}",
    "{% set s = 'x' * 30000000 %}{% set t %}{{ s }}{{ s }}{% endset %}{{ t | length }}",
    (
        "{% set s = 'x' * 30000000 %}{% macro f() %}{% for i in range(2000) %}{{ s }}{% endfor %}"
        "{% endmacro %}{{ f() | length }}"
    ),
]


def render(source: str, **fields: Any) -> str:
    """Render where only a tenth of a second of work is allowed."""
    template = ChatTemplate(source, limit_seconds=0.1)
    return template.render([{"role": "user", "content": "x"}], **fields)


@pytest.mark.parametrize("source", [*ENDLESS, *HUGE])
def test_what_has_no_end_is_ended(source: str) -> None:
    with pytest.raises(TemplateError):
        render(source)


@pytest.mark.parametrize(
    "step",
    ["s ~ i", "s + 'y'", "s[1:]", "s.upper()", "s | upper", "s | replace('x', 'y', 1)"],
)
def test_texts_that_are_small_enough_one_by_one_do_not_fill_the_memory_together(step: str) -> None:
    # 400 of a million characters, of four bytes each.
    source = (
        "{% set s = '\U0001f600' * 1000000 %}"
        f"{{% for i in range(400) %}}{{% set t = {step} %}}{{% endfor %}}"
    )
    template = ChatTemplate(source, limit_seconds=60)
    with pytest.raises(TemplateError, match="too much"):
        template.render([{"role": "user", "content": "x"}])


def test_each_rendering_has_a_budget_of_its_own() -> None:
    template = ChatTemplate("{% set s = 'x' * 30000000 %}{{ s | length }}")
    for _ in range(40):
        assert template.render([{"role": "user", "content": "x"}]) == "30000000"


def test_the_watchdog_asks_the_clock_that_it_was_given() -> None:
    ticks = iter(range(1_000_000))
    template = ChatTemplate(ENDLESS[0], cpu_seconds=lambda: float(next(ticks)), limit_seconds=10)

    with pytest.raises(TemplateError, match="too long"):
        template.render([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ [1, 2] | join(', ') }}", "1, 2"),
        ("{{ 7 - 4 }}{{ 7 // 2 }}{{ 7 / 2 }}{{ 2.5 | round | int }}{{ '12' | int }}", "333.5212"),
        ("{{ 4 is divisibleby 2 }}{{ 'ff' | int(base=16) }}{{ 'x' | int(3) }}", "True2553"),
        ("{{ 'abc'[1:] }}{{ [1, 2][:1] }}{{ 'abc'[-1] }}{{ 'abc' | reverse }}", "bc[1]ccba"),
        ("{{ ' a b\nc'.split() }}{{ 'a\nb'.splitlines() | last }}", "['a', 'b', 'c']b"),
        ("{{ 'abc' | replace('a', 'b') }}{{ 'abc'.replace('c', 'd') }}", "bbcabd"),
        (
            "{{ 7 % 4 }}{{ 2 * 3 }}{{ 2 ** 5 }}{{ 'a' ~ 1 ~ none }}{{ [1] + [2] }}",
            "3632a1None[1, 2]",
        ),
        ("{% for key, value in {'a': 1}.items() %}{{ key }}{{ value }}{% endfor %}", "a1"),
        (
            "{% set a, b = 1, 2 %}{{ a + b }}{{ messages[0].items() | list }}",
            "3[('role', 'user'), ('content', 'x')]",
        ),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ {'a': [1]} | tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
        ("{{ [{'a': 'ä'}] | tojson }}{{ [1] | string | upper }}", '[{"a": "ä"}][1]'),
        ("{{ {'a': [1]} }}{{ ' b ' | trim }}{{ 'c d' | title }}", "{'a': [1]}bC D"),
        ("{% set t %}a{{ 1 }}{% endset %}{{ t }}{{ 'abc' | truncate(3, true, '') }}", "a1abc"),
        ("{{ 'a\nb' | indent(2) }}{{ ' x '.strip() }}{{ 'a,b'.split(',')[-1] }}", "a\n  bxb"),
        (
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}"
                "{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
            ),
            "1",
        ),
    ],
)
def test_what_templates_do_still_works(source: str, text: str) -> None:
    assert render(source) == text


def test_templates_are_found_in_all_three_places_in_order(tmp_path: Path) -> None:
    assert read_template(tmp_path) is None
    for name, document in (
        ("tokenizer_config.json", '{"chat_template": [{"name": "default", "template": "one"}]}'),
        ("chat_template.json", '{"chat_template": "two"}'),
        ("chat_template.jinja", "three"),
    ):
        (tmp_path / name).write_text(document)
    found = []
    for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json"):
        template = read_template(tmp_path)
        assert template is not None
        found.append(template.source)
        (tmp_path / name).unlink()

    assert found == ["three", "two", "one"]


@pytest.mark.parametrize(
    ("source", "plain", "tools"),
    [
        ("{{ messages[0].content }}", True, True),
        ("{{ messages[0].content }}{{ tools | tojson }}", True, True),
        ("{{ raise_exception('no') }}", False, False),
        (
            (
                "{{ messages[0].content }}{% for tool in tools or [] %}"
                "{{ tool.function.parameters.properties.items() }}{% endfor %}"
            ),
            True,
            False,
        ),
        ("{% for m in messages %}{{ m.content + '' }}{% endfor %}{{ tools }}", True, False),
        ("{% if", False, False),
    ],
)
def test_fixtures_tell_what_a_template_can_render(
    tmp_path: Path, source: str, plain: bool, tools: bool
) -> None:
    (tmp_path / "chat_template.jinja").write_text(source)

    report = examine(tmp_path)

    assert (report.plain, report.tools) == (plain, tools)


def test_a_model_that_sees_must_render_pictures(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content + '' }}")

    assert examine(tmp_path).plain
    assert not examine(tmp_path, vision=True).plain


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "words", ['{"auto_map": {"AutoModel": "m.M"}}', '{"trust_remote_code": true}']
)
def test_a_build_that_brings_code_is_refused_with_the_reason(
    tmp_path: Path, name: str, words: str
) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / name).write_text(words)

    with pytest.raises(TokenizerError, match="code of its own"):
        Tokenizer.read(tmp_path)
