"""Jinja's immutable sandbox, with a bound on every text and number that one operation can make.

A watchdog ends loops, but no watchdog ends a single operation that fills the memory: those are
refused before they run.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import jinja2.nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_TEXT_CHARS: Final = 32 << 20
MAX_WIDTH: Final = 4096
"""Widest padding or indentation."""
_PART_CHARS: Final = 256
"""What a part of a container counts beside its text."""
_MAX_BITS: Final = 4096
"""Of numbers that grow by powers and products."""

_PADDING: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
_UNBOUNDED_FILTERS: Final = (
    *("center", "format", "wordwrap", "urlize", "xmlattr", "pprint", "random", "filesizeformat"),
    *("batch", "slice", "striptags", "urlencode", "forceescape", "sum"),
)
"""No chat template needs them, and each can be made to work or to write without end."""


_TEXT_FILTERS: Final = (
    *("string", "list", "safe", "escape", "e", "upper", "lower", "capitalize", "title"),
    *("trim", "truncate", "wordcount"),
)
"""They write out whatever they are given."""


class TemplateLimitError(Exception):
    """A template asked for more than it may have; holds no content."""


class _BoundedGenerator(CodeGenerator):
    """Compiles what makes texts and containers to calls that look at the sizes."""

    def visit_Concat(self, node: jinja2.nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.bounded_concat((")
        for argument in node.nodes:
            self.visit(argument, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: jinja2.nodes.List, frame: Frame) -> None:  # noqa: N802
        self.write("environment.bounded(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Tuple(self, node: jinja2.nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "store":
            super().visit_Tuple(node, frame)
            return
        self.write("environment.bounded(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def visit_Dict(self, node: jinja2.nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self.write("environment.bounded(")
        super().visit_Dict(node, frame)
        self.write(")")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox of chat templates."""

    code_generator_class = _BoundedGenerator
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **options: Any) -> None:
        # Whatever is written becomes text in one operation, which no watchdog ends.
        super().__init__(finalize=_weighed, **options)
        for name in _UNBOUNDED_FILTERS:
            del self.filters[name]
        self.filters["join"] = _bounded_join(self.filters["join"])
        self.filters["replace"] = _bounded_replace(self.filters["replace"])
        self.filters["indent"] = _bounded_indent(self.filters["indent"])
        for name in _TEXT_FILTERS:
            self.filters[name] = _bounded_text(self.filters[name])

    def bounded(self, value: Any) -> Any:
        """Give a container back, once it is known to be small enough.

        Containers that hold another twice, which holds another twice, have no end when they are
        written or compared: so no container may outgrow the bound, however it shares its parts.
        """
        weigh(value)
        return value

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join what a macro or a block has written."""
        texts = list(parts)
        _check(sum(map(len, texts)))
        return "".join(texts)

    def bounded_concat(self, parts: tuple[Any, ...]) -> str:
        """Join parts as text."""
        weigh(parts)
        texts = [str(part) for part in parts]
        _check(sum(map(len, texts)))
        return "".join(texts)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Give what stands for the `format` of a text; None for anything else."""
        return None if super().wrap_str_format(value) is None else _refuse_format

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002
        """Compute, once the result is known to be small enough."""
        return _OPERATIONS[operator](left, right)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - as above
        weigh(args)
        weigh(kwargs)
        _check_method(obj, args)
        return self.bounded(super().call(context, obj, *args, **kwargs))


def weigh(value: Any, *, times: int = 1) -> None:
    """Check how large a value would be with all its parts written out.

    Args:
        value: Of any kind.
        times: How often it is repeated.

    Raises:
        TemplateLimitError: Too large.
    """
    size = 0
    waiting = [value]
    while waiting:
        part = waiting.pop()
        size += _PART_CHARS
        if isinstance(part, str):
            size += len(part)
        elif isinstance(part, Mapping):
            waiting += part.keys()
            waiting += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            waiting += part
        elif isinstance(part, Namespace):
            # Its own attribute access answers for what a template has put in.
            waiting += object.__getattribute__(part, "_Namespace__attrs").values()
        _check(size * times)


def _check(size: int) -> None:
    if size > MAX_TEXT_CHARS:
        raise TemplateLimitError("template writes too much")


def _multiply(left: Any, right: Any) -> Any:
    for times, thing in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(thing, str | bytes | list | tuple):
            _check(times * max(1, len(thing)))
            if isinstance(thing, list | tuple):
                weigh(thing, times=max(1, times))
    _check_bits(left, right)
    return left * right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MAX_BITS:
        raise TemplateLimitError("template computes too large a number")
    return left**right


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        _check(len(left) + len(right))
        weigh((left, right))
    _check_bits(left, right)
    return left + right


def _remainder(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        # A width of a billion is six characters long.
        raise TemplateLimitError("template formats text")
    return left % right


_OPERATIONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "*": _multiply,
    "**": _power,
    "+": _add,
    "%": _remainder,
}


def _check_bits(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() + right.bit_length()
        if bits > _MAX_BITS:
            raise TemplateLimitError("template computes too large a number")


def _check_method(method: Any, args: tuple[Any, ...]) -> None:
    """Look at the arguments of methods of text that can write much."""
    text = getattr(method, "__self__", None)
    name = getattr(method, "__name__", "")
    if not isinstance(text, str):
        return
    if name in _PADDING and any(isinstance(width, int) and width > MAX_WIDTH for width in args):
        raise TemplateLimitError("template writes too much")
    if name == "replace" and len(args) > 1:
        _check_replace(text, *args[:2])
    if name == "join" and args and isinstance(args[0], list | tuple):
        _check(sum(len(str(part)) + len(text) for part in args[0]))
    if name == "translate":
        raise TemplateLimitError("template translates text")


def _refuse_format(*_arguments: Any, **_named: Any) -> NoReturn:
    # A width of a billion is ten characters long.
    raise TemplateLimitError("template formats text")


def _check_replace(text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str):
        _check(len(text) + text.count(old) * len(new))


def _bounded_join(join: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(eval_ctx: Any, value: Any, d: str = "", attribute: str | int | None = None) -> Any:
        parts = list(value)
        weigh(parts)
        _check(sum(len(part) if isinstance(part, str) else 1 for part in parts))
        _check(len(parts) * len(d))
        return join(eval_ctx, parts, d, attribute)

    return _marked_like(join, bounded)


def _bounded_replace(replace: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(eval_ctx: Any, s: Any, old: str, new: str, count: int | None = None) -> Any:
        weigh((s, old, new))
        _check_replace(str(s), str(old), str(new))
        return replace(eval_ctx, s, old, new, count)

    return _marked_like(replace, bounded)


def _bounded_indent(indent: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> Any:
        wide = width if isinstance(width, int) else len(width)
        if wide > MAX_WIDTH:
            raise TemplateLimitError("template writes too much")
        _check(len(s) + (s.count("\n") + 1) * wide)
        return indent(s, width, first, blank)

    return bounded


def _weighed(value: Any) -> Any:
    weigh(value)
    return value


def _bounded_text(write: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(*arguments: Any, **named: Any) -> Any:
        # Of a filter that wants its environment too, that counts as one part.
        weigh(arguments)
        return write(*arguments, **named)

    return _marked_like(write, bounded)


def _marked_like(original: Callable[..., Any], made: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the mark by which Jinja knows what a filter wants as its first argument."""
    for name, value in getattr(original, "__dict__", {}).items():
        setattr(made, name, value)
    return made
