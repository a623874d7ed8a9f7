"""Calls in tags: Qwen's functions with parameters, GLM's keys and values."""

import re
from collections.abc import Sequence
from typing import Final

from darkbloom_provider.engine.tools.held import HeldCall, NoCallError, typed
from darkbloom_provider.engine.tools.reading import Schemas

FUNCTION_CLOSE: Final = "</function>"
_FUNCTION: Final = re.compile(r"\s*<function=([^\s<>]+)>(.*)</function>\s*\Z", re.DOTALL)
_PARAMETER: Final = re.compile(r"\s*<parameter=([^\s<>]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_GLM_NAME: Final = re.compile(r"\s*([\w.-]+)\s*(?=<arg_key>|\Z)")
_GLM_PAIR: Final = re.compile(
    r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL
)


def qwen_call(payload: str, schemas: Schemas) -> Sequence[HeldCall]:
    """Read `<function=name><parameter=key>value</parameter>…</function>`.

    Raises:
        NoCallError: It is not written so.
    """
    found = _FUNCTION.match(payload)
    if found is None:
        raise NoCallError("no function")
    name, body = found.groups()
    return [HeldCall(name, _pairs(_PARAMETER, body, name, schemas))]


def glm_call(payload: str, schemas: Schemas) -> Sequence[HeldCall]:
    """Read `name<arg_key>key</arg_key><arg_value>value</arg_value>…`.

    Raises:
        NoCallError: It is not written so.
    """
    found = _GLM_NAME.match(payload)
    if found is None:
        raise NoCallError("no name")
    name = found.group(1)
    return [HeldCall(name, _pairs(_GLM_PAIR, payload[found.end() :], name, schemas))]


def _pairs(pattern: re.Pattern[str], body: str, name: str, schemas: Schemas) -> dict[str, object]:
    arguments: dict[str, object] = {}
    place = 0
    while (found := pattern.match(body, place)) is not None:
        key, value = found.groups()
        if key in arguments:
            raise NoCallError("a key comes twice")
        arguments[key] = typed(value, key, schemas.get(name))
        place = found.end()
    if body[place:].strip():
        raise NoCallError("something else between the parameters")
    return arguments
