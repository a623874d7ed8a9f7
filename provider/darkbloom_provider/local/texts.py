"""Tokens and prompts of a build, for the owner to look at: nothing is generated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from darkbloom_edge.chat_template.template import TemplateError
from darkbloom_edge.strict_json import canonical_json

from darkbloom_provider.engine.interface import Build
from darkbloom_provider.local.errors import LocalError, bad_request

if TYPE_CHECKING:
    from darkbloom_provider.engine.tokenizer import Tokenizer

MAX_TOKENS: Final = 1_000_000
"""Most tokens of one `detokenize`."""


@final
class Texts:
    """Reads the tokenizer of a build once; every call may block, so call it off the event loop."""

    def __init__(self) -> None:
        self._tokenizers: dict[str, Tokenizer] = {}

    def tokenize(self, build: Build, fields: dict[str, Any]) -> bytes:
        """Answer `{"content": …}` with `{"tokens": […]}`."""
        content = fields.get("content")
        if not isinstance(content, str):
            raise bad_request("content must be a string", "content")
        tokens = self._tokenizer(build).encode(content)
        return canonical_json({"tokens": tokens, "count": len(tokens)})

    def detokenize(self, build: Build, fields: dict[str, Any]) -> bytes:
        """Answer `{"tokens": […]}` with `{"content": …}`."""
        tokens = fields.get("tokens")
        tokenizer = self._tokenizer(build)
        if not isinstance(tokens, list) or len(tokens) > MAX_TOKENS:
            raise bad_request("tokens must be a list of token ids", "tokens")
        known = range(tokenizer.vocabulary)
        if any(type(token) is not int or token not in known for token in tokens):
            raise bad_request("tokens holds an id that the build does not know", "tokens")
        return canonical_json({"content": tokenizer.decode(tokens)})

    def apply_template(self, build: Build, fields: dict[str, Any]) -> bytes:
        """Answer `{"messages": […]}` with the prompt that the build would read."""
        from darkbloom_edge.dialects.chat import CHAT
        from darkbloom_edge.errors import RequestError

        try:
            lowered = CHAT.lower(canonical_json({**fields, "model": build.build_id}))
        except RequestError as error:
            raise bad_request(error.message, error.param) from None
        tokenizer = self._tokenizer(build)
        if tokenizer.template is None:
            raise LocalError(422, "template_render", "the build has no chat template")
        try:
            prompt = tokenizer.template.render(
                lowered.fields["messages"],
                tools=lowered.fields.get("tools") or [],
                variables=dict(tokenizer.variables),
            )
        except TemplateError as error:
            raise LocalError(422, "template_render", str(error)) from None
        return canonical_json({"prompt": prompt})

    def _tokenizer(self, build: Build) -> Tokenizer:
        from darkbloom_provider.engine.tokenizer import Tokenizer, TokenizerError

        found = self._tokenizers.get(build.build_id)
        if found is None:
            if build.directory is None:
                raise _none()
            try:
                found = Tokenizer.read(build.directory)
            except TokenizerError:
                raise _none() from None
            self._tokenizers[build.build_id] = found
        return found


def _none() -> LocalError:
    return LocalError(501, "tokenizer_not_available", "the build has no tokenizer")
