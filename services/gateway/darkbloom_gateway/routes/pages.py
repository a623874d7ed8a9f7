"""`GET /llms.txt`: the documentation, for programs that read (llmstxt.org)."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

from darkbloom_gateway.errors import not_found

ROUTES = frozenset({"/llms.txt", "/llms-full.txt"})
MAP, FULL = "llms.txt", "llms-full.txt"
_MARK = "<!-- page: docs/"
_END = " -->\n"
_AN_HOUR = {"cache-control": "public, max-age=3600"}
_PLAIN, _MARKDOWN = "text/plain; charset=utf-8", "text/markdown; charset=utf-8"


def make_router() -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/llms.txt")
    async def llms_map() -> Response:
        """Return what there is to read, as Markdown with links."""
        return Response(_text(MAP), media_type=_PLAIN, headers=_AN_HOUR)

    @router.get("/llms-full.txt")
    async def llms_full() -> Response:
        """Return every page that the map names, in one text."""
        return Response(_text(FULL), media_type=_PLAIN, headers=_AN_HOUR)

    @router.get("/docs/{page}")
    async def documentation(page: str) -> Response:
        """Return one page of the documentation, as Markdown."""
        found = _pages().get(page)
        if found is None:
            raise not_found("this gateway has no such page: see /llms.txt")
        return Response(found, media_type=_MARKDOWN, headers=_AN_HOUR)

    return router


@cache
def _text(name: str) -> str:
    return (files("darkbloom_gateway") / "pages" / name).read_text("utf-8")


@cache
def _pages() -> Mapping[str, str]:
    """Return pages by name, cut out of the whole text at its marks."""
    parts = (part.partition(_END) for part in _text(FULL).split(_MARK)[1:])
    return {name: body.rstrip("\n") + "\n" for name, _, body in parts}
