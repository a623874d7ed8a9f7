"""Jinja's immutable sandbox, with a bound on every text and number that one operation can make.

A watchdog ends loops, but no watchdog ends a single operation that fills the memory: those are
refused before they run.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import jinja2.nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from darkbloom_edge.chat_template.budget import TemplateLimitError, all_made, made

MAX_TEXT_CHARS: Final = 32 << 20
MAX_WIDTH: Final = 4096
"""Widest padding or indentation."""
_PART_CHARS: Final = 256
"""What a part of a container counts beside its text."""
_MAX_BITS: Final = 4096
"""Of both numbers of an operation together: division is quadratic, and one step of Python's."""
_MAX_DIGITS: Final = 4300
"""Of a text that becomes a number; Python's own bound leaves out bases 2, 4, 8, 16 and 32."""
_MAX_PRECISION: Final = 64
"""Of rounding, which computes a power of ten."""

_PADDING: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
_UNBOUNDED_FILTERS: Final = (
    *("center", "format", "wordwrap", "urlize", "xmlattr", "pprint", "random", "filesizeformat"),
    *("batch", "slice", "striptags", "urlencode", "forceescape", "sum", "wordcount"),
)
"""No chat template needs them, and each can be made to work or to write without end."""


_TEXT_FILTERS: Final = (
    *("string", "list", "safe", "escape", "e", "upper", "lower", "capitalize", "title"),
    *("trim", "truncate", "reverse"),
)
"""They write out whatever they are given."""
_PART_FILTERS: Final = ("list", "sort", "groupby", "title")
"""Of a text they make a part for every character, or for every word."""
_REFUSED_METHODS: Final = frozenset({"encode", "from_bytes", "to_bytes", "translate"})
"""Of texts, and of numbers: what they make has no bound, and no template needs it."""
_WHITESPACE: Final = "".join(filter(str.isspace, map(chr, range(0x3001))))
_LINE_ENDS: Final = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


class _BoundedGenerator(CodeGenerator):
    """Compiles what makes texts and containers to calls that look at the sizes."""

    def visit_Concat(self, node: jinja2.nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.bounded_concat((")
        for argument in node.nodes:
            self.visit(argument, frame)
            self.write(", ")
        self.write("))")

    def visit_Getitem(self, node: jinja2.nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        # Slices are written as Python's own and ask nobody.
        sliced = isinstance(node.arg, jinja2.nodes.Slice)
        self.write("environment.made(" if sliced else "(")
        super().visit_Getitem(node, frame)
        self.write(")")

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
    intercepted_binops = frozenset({"*", "**", "+", "-", "/", "//", "%"})
    made = staticmethod(made)

    def __init__(self, **options: Any) -> None:
        # Whatever is written becomes text in one operation, which no watchdog ends.
        super().__init__(finalize=_weighed, **options)
        for name in _UNBOUNDED_FILTERS:
            del self.filters[name]
        self.filters["join"] = _bounded_join(self.filters["join"])
        self.filters["replace"] = _bounded_replace(self.filters["replace"])
        self.filters["indent"] = _bounded_indent(self.filters["indent"])
        self.filters["int"] = _bounded_int(self.filters["int"])
        self.filters["round"] = _bounded_round(self.filters["round"])
        self.tests["divisibleby"] = _divisible
        for name in _TEXT_FILTERS:
            self.filters[name] = _bounded_text(self.filters[name])
        for name in _PART_FILTERS:
            self.filters[name] = _bounded_parts(self.filters[name])

    def bounded(self, value: Any) -> Any:
        """Give a container back, once it is known to be small enough.

        Containers that hold another twice, which holds another twice, have no end when they are
        written or compared: so no container may outgrow the bound, however it shares its parts.
        """
        weigh(value)
        return made(value)

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join what a macro or a block has written."""
        texts = list(parts)
        _check(sum(map(len, texts)))
        return str(made("".join(texts)))

    def bounded_concat(self, parts: tuple[Any, ...]) -> str:
        """Join parts as text."""
        weigh(parts)
        texts = [str(part) for part in parts]
        _check(sum(map(len, texts)))
        return str(made("".join(texts)))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Give what stands for the `format` of a text; None for anything else."""
        return None if super().wrap_str_format(value) is None else _refuse_format

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002
        """Compute, once the result is known to be small enough."""
        return made(_OPERATIONS[operator](left, right))

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - as above
        weigh(args)
        weigh(kwargs)
        _check_method(obj, args)
        value = super().call(context, obj, *args, **kwargs)
        weigh(value)
        return all_made(value) if isinstance(getattr(obj, "__self__", None), str) else value


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
    _check_bits(left, right)
    return left % right


def _bounded_numbers(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def bounded(left: Any, right: Any) -> Any:
        _check_bits(left, right)
        return operation(left, right)

    return bounded


def _divisible(value: Any, num: Any) -> bool:
    return bool(_remainder(value, num) == 0)


_OPERATIONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "*": _multiply,
    "**": _power,
    "+": _add,
    "%": _remainder,
    "-": _bounded_numbers(operator.sub),
    "/": _bounded_numbers(operator.truediv),
    "//": _bounded_numbers(operator.floordiv),
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
    if text is not None and name in _REFUSED_METHODS:
        raise TemplateLimitError("template makes what is no text")
    if not isinstance(text, str):
        return
    if name in _PADDING and any(isinstance(width, int) and width > MAX_WIDTH for width in args):
        raise TemplateLimitError("template writes too much")
    if name == "replace" and len(args) > 1:
        _check_replace(text, *args[:2])
    if name == "join" and args and isinstance(args[0], list | tuple):
        _check(sum(len(str(part)) + len(text) for part in args[0]))
    if name in {"split", "rsplit"}:
        separator = args[0] if args else None
        _check_parts(text, (separator,) if isinstance(separator, str) else _WHITESPACE)
    if name == "splitlines":
        _check_parts(text, _LINE_ENDS)


def _refuse_format(*_arguments: Any, **_named: Any) -> NoReturn:
    # A width of a billion is ten characters long.
    raise TemplateLimitError("template formats text")


def _check_replace(text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str):
        _check(len(text) + text.count(old) * len(new))


def _check_parts(text: str, separators: Iterable[str]) -> None:
    """Look at how many parts a text would fall into; each is an object of its own."""
    if len(text) * _PART_CHARS > MAX_TEXT_CHARS:
        _check(sum(text.count(separator) for separator in separators if separator) * _PART_CHARS)


def _bounded_int(convert: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(value: Any, default: Any = 0, base: int = 10) -> Any:
        if isinstance(value, str) and len(value) > _MAX_DIGITS:
            raise TemplateLimitError("template computes too large a number")
        return convert(value, default, base)

    return bounded


def _bounded_round(convert: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(value: Any, precision: int = 0, method: str = "common") -> Any:
        if not -_MAX_PRECISION <= precision <= _MAX_PRECISION:
            raise TemplateLimitError("template computes too large a number")
        _check_bits(value, 10**_MAX_PRECISION)
        return convert(value, precision, method)

    return bounded


def _bounded_parts(write: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(*arguments: Any, **named: Any) -> Any:
        # The first may be the environment, where a filter asks for it.
        for argument in arguments:
            if isinstance(argument, str):
                _check(len(argument) * _PART_CHARS)
        return made(write(*arguments, **named))

    return _marked_like(write, bounded)


def _bounded_join(join: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(eval_ctx: Any, value: Any, d: str = "", attribute: str | int | None = None) -> Any:
        parts = list(value)
        weigh(parts)
        _check(sum(len(part) if isinstance(part, str) else 1 for part in parts))
        _check(len(parts) * len(d))
        return made(join(eval_ctx, parts, d, attribute))

    return _marked_like(join, bounded)


def _bounded_replace(replace: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(eval_ctx: Any, s: Any, old: str, new: str, count: int | None = None) -> Any:
        weigh((s, old, new))
        _check_replace(str(s), str(old), str(new))
        return made(replace(eval_ctx, s, old, new, count))

    return _marked_like(replace, bounded)


def _bounded_indent(indent: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> Any:
        wide = width if isinstance(width, int) else len(width)
        if wide > MAX_WIDTH:
            raise TemplateLimitError("template writes too much")
        _check(len(s) + (s.count("\n") + 1) * wide)
        return made(indent(s, width, first, blank))

    return bounded


def _weighed(value: Any) -> Any:
    weigh(value)
    return value


def _bounded_text(write: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(*arguments: Any, **named: Any) -> Any:
        # Of a filter that wants its environment too, that counts as one part.
        weigh(arguments)
        return made(write(*arguments, **named))

    return _marked_like(write, bounded)


def _marked_like(original: Callable[..., Any], made: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the mark by which Jinja knows what a filter wants as its first argument."""
    for name, value in getattr(original, "__dict__", {}).items():
        setattr(made, name, value)
    return made
