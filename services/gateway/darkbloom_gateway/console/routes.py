"""The console over HTTP: one page under several paths, its assets, and what it must know."""

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from darkbloom_gateway.console.sign_in import SignIn
from darkbloom_gateway.console.site import BASE, PAGES, Asset, fence, load_site
from darkbloom_gateway.errors import no_such_endpoint
from darkbloom_gateway.routes.plane import Reply, reply

ROUTES = frozenset({"/", BASE, f"{BASE}/", *(f"{BASE}/{name}" for name in PAGES)})
"""Paths that metrics may name."""
_READS = ["GET", "HEAD"]
_AGAIN = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"
_NOT_MODIFIED, _REDIRECT = 304, 307


def make_router(sign_in: SignIn | None, *, environment: str, version: str) -> APIRouter:
    """Return the routes.

    Args:
        sign_in: where people sign in; None: nobody can, and the page says so.
        environment: `development` makes the page say that nothing here is real.
        version: of the gateway, for people.
    """
    router, site = APIRouter(include_in_schema=False), load_site()
    headers = fence(sign_in.origin if sign_in is not None else None)
    known = {
        "version": version,
        "environment": environment,
        "sign_in": (
            {
                "authorize_url": sign_in.authorize_url,
                "token_url": sign_in.token_url,
                "client_id": sign_in.client_id,
            }
            if sign_in is not None
            else None
        ),
    }

    async def home() -> Reply:
        """Lead people who typed the bare address to the console."""
        return Response(status_code=_REDIRECT, headers={"location": f"{BASE}/", **headers})

    async def page(request: Request) -> Reply:
        """Return the page."""
        return _send(request, site.page, _AGAIN, headers)

    async def config() -> Reply:
        """Return what the page needs to sign people in; none of it is secret."""
        return reply(known, headers={"cache-control": _AGAIN, **headers})

    async def asset(request: Request, release: str, path: str) -> Reply:
        """Return an asset of this very version."""
        found = site.assets.get(path) if release == site.version else None
        if found is None:
            raise no_such_endpoint()
        return _send(request, found, _FOR_EVER, headers)

    for path in ("/", BASE):
        router.add_api_route(path, home, methods=_READS)
    for path in (f"{BASE}/", *(f"{BASE}/{name}" for name in PAGES)):
        router.add_api_route(path, page, methods=_READS)
    router.add_api_route(f"{BASE}/config.json", config, methods=_READS)
    router.add_api_route(f"{BASE}/assets/{{release}}/{{path:path}}", asset, methods=_READS)
    return router


def _send(request: Request, asset: Asset, caching: str, headers: Mapping[str, str]) -> Reply:
    told = {**headers, "cache-control": caching, "etag": asset.etag}
    if asset.etag in _tags(request.headers.get("if-none-match", "")):
        return Response(status_code=_NOT_MODIFIED, headers=told)
    return Response(asset.content, headers=told, media_type=asset.media_type)


def _tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}
