"""Render a model's chat template in a sandbox.

A template arrives with weights from strangers and then meets prompts: it may read plain JSON values
and call nothing that the sandbox does not know, its source and its output are bounded, and its
errors never carry content.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SOURCE_CHARS: Final = 1 << 20
MAX_OUTPUT_CHARS: Final = 32 << 20


class TemplateError(Exception):
    """A template does not compile or does not render this conversation."""


class ChatTemplate:
    """A compiled chat template; rendering has no side effects."""

    def __init__(self, source: str) -> None:
        """Compile.

        Raises:
            TemplateError: Too long, or not valid Jinja.
        """
        if len(source) > MAX_SOURCE_CHARS:
            raise TemplateError("template is too long")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[jinja2.ext.loopcontrols],
            # What is rendered is a prompt for a model, never a page.
            autoescape=False,
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError, ValueError, OverflowError) as error:
            raise TemplateError("template does not compile") from _without_content(error)
        self.mentions_tools = "tools" in source

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Render a conversation, ready for the model's answer.

        Args:
            messages: Plain JSON objects with `role` and `content`.
            tools: Tool definitions, where the request has some.
            variables: Further names, such as `bos_token`.

        Raises:
            TemplateError: The template refuses this conversation, fails, or writes too much.
        """
        try:
            return _join(
                self._template.generate(
                    **(variables or {}),
                    messages=[dict(message) for message in messages],
                    tools=[dict(tool) for tool in tools] if tools else None,
                    add_generation_prompt=True,
                )
            )
        except TemplateError:
            raise
        except Exception as error:  # noqa: BLE001 - a template may fail in any way that Python can
            raise TemplateError("template does not render") from _without_content(error)


def _join(pieces: Iterable[str]) -> str:
    joined: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_OUTPUT_CHARS:
            raise TemplateError("template writes too much")
        joined.append(piece)
    return "".join(joined)


def _without_content(error: Exception) -> Exception:
    """Keep the kind of a cause and drop its text, which may quote a prompt."""
    return RuntimeError(type(error).__name__)


def _raise_exception(_message: str) -> NoReturn:
    raise jinja2.TemplateRuntimeError("refused by the template")


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes for HTML, which would put entities into prompts.
    return json.dumps(value, ensure_ascii=False, indent=indent)
