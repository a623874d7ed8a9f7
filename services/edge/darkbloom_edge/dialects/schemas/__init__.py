"""What each dialect takes and gives, as JSON Schema 2020-12 for the OpenAPI document.

A schema of a request says what is read: a field that is not here is ignored, and a null one is an
absent one. A schema of an answer says what is always there.
"""

from collections.abc import Mapping
from typing import NamedTuple

from darkbloom_edge.dialects.schemas import chat, completions, messages, responses
from darkbloom_edge.dialects.schemas.parts import Schema

COMPONENTS: Mapping[str, Schema] = {
    **chat.COMPONENTS,
    **completions.COMPONENTS,
    **messages.COMPONENTS,
    **responses.COMPONENTS,
}
"""Everything by name."""


class Shapes(NamedTuple):
    """Names of the components of one dialect."""

    request: str
    answer: str
    event: str
    """What each `data:` line of a stream holds."""


SHAPES: Mapping[str, Shapes] = {
    "/v1/chat/completions": Shapes(chat.REQUEST, chat.ANSWER, chat.EVENT),
    "/v1/completions": Shapes(completions.REQUEST, completions.ANSWER, completions.EVENT),
    "/v1/messages": Shapes(messages.REQUEST, messages.ANSWER, messages.EVENT),
    "/v1/responses": Shapes(responses.REQUEST, responses.ANSWER, responses.EVENT),
}
"""By path."""
