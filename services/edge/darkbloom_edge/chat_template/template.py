"""Render a model's chat template in a sandbox.

A template arrives with weights from strangers and then meets prompts: it may read plain JSON values
and call nothing that the sandbox does not know; its source, its working time, every text that it
makes and its output are bounded, and its errors never carry content.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, NoReturn

import jinja2
import jinja2.ext

from darkbloom_edge.chat_template.budget import TemplateLimitError, budgeted, made
from darkbloom_edge.chat_template.sandbox import MAX_TEXT_CHARS, BoundedEnvironment, weigh

MAX_SOURCE_CHARS: Final = 1 << 20
MAX_OUTPUT_CHARS: Final = MAX_TEXT_CHARS
MAX_JSON_INDENT: Final = 16
MAX_CPU_SECONDS: Final = 10.0
"""Of one rendering, on its own thread: a crowded machine does not make a template slower."""
MAX_FILE_BYTES: Final = 4 << 20
TEMPLATE_FILES: Final = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Where a build may have its template; the first that has one is used."""
_ASK_EVERY: Final = 64
"""Lines between two looks at the time."""
_TEMPLATE_CODE: Final = "<template>"
"""Where Jinja says that compiled templates are from."""


class TemplateError(Exception):
    """A template does not compile or does not render this conversation."""


class ChatTemplate:
    """A compiled chat template; rendering has no side effects."""

    def __init__(
        self,
        source: str,
        *,
        cpu_seconds: Callable[[], float] = time.thread_time,
        limit_seconds: float = MAX_CPU_SECONDS,
    ) -> None:
        """Compile.

        Args:
            source: Jinja, as the build brought it.
            cpu_seconds: What the calling thread has worked so far.
            limit_seconds: Of one rendering.

        Raises:
            TemplateError: Too long, or not valid Jinja.
        """
        if len(source) > MAX_SOURCE_CHARS:
            raise TemplateError("template is too long")
        environment = BoundedEnvironment(
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
        self.source = source
        self.mentions_tools = "tools" in source
        self._cpu_seconds = cpu_seconds
        self._limit_seconds = limit_seconds

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
            TemplateError: The template refuses this conversation, fails, works too long, or writes
                too much.
        """
        try:
            with budgeted(), _ended_after(self._cpu_seconds, self._limit_seconds):
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
        except TemplateLimitError as error:
            raise TemplateError(str(error)) from None
        except Exception as error:  # noqa: BLE001 - a template may fail in any way that Python can
            raise TemplateError("template does not render") from _without_content(error)


def source_in(name: str, data: bytes) -> str | None:
    """Return the template that one of `TEMPLATE_FILES` holds; None where it holds none.

    Raises:
        TemplateError: Too large, or not what its name says.
    """
    if len(data) > MAX_FILE_BYTES:
        raise TemplateError(f"{name} is too large")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise TemplateError(f"{name} is not text") from None
    if not name.endswith(".json"):
        return text
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise TemplateError(f"{name} is not valid JSON") from None
    source = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(source, list):
        source = _named(source)
    return source if isinstance(source, str) else None


def _named(templates: list[Any]) -> Any:
    """Choose among several: the one for tools renders plain conversations as well."""
    named = {item.get("name"): item.get("template") for item in templates if isinstance(item, dict)}
    return named.get("tool_use", named.get("default"))


@contextmanager
def _ended_after(cpu_seconds: Callable[[], float], limit: float) -> Iterator[None]:
    """End whatever Python code runs in here once this thread has worked so long.

    The interpreter itself asks before every line of the template and at every call, so no loop
    escapes; single operations are bounded by the sandbox.
    """
    end = cpu_seconds() + limit
    asked = 0

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked % _ASK_EVERY == 0 and cpu_seconds() > end:
            raise TemplateLimitError("template works too long")
        return trace if frame.f_code.co_filename == _TEMPLATE_CODE else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


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


def _to_json(value: Any, indent: object = None) -> str:
    # Jinja's own filter escapes for HTML, which would put entities into prompts.
    weigh(value)
    if indent is None:
        return str(made(json.dumps(value, ensure_ascii=False)))
    if not isinstance(indent, int) or not 0 <= indent <= MAX_JSON_INDENT:
        raise TemplateLimitError("template indents too much")
    # Each part is indented by its depth, which its weight does not tell.
    return str(made(_join(json.JSONEncoder(ensure_ascii=False, indent=indent).iterencode(value))))
