"""The page of a Checkout session, for a person with a browser: pay, or leave."""

import html
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tests.stripe_local import cards, checkout
from tests.stripe_local.world import World

_SEE_OTHER = 303
_STYLE = """
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 26rem; margin: 12vh auto; padding: 1rem }
button { font: inherit; padding: .7rem 1.2rem; margin: .3rem .3rem .3rem 0 }
strong { color: #a11 }
"""


def show(world: World, name: str) -> Response:
    """Return the page of an open session."""
    session = world.get("checkout.session", name)
    if session["status"] != "open":
        return HTMLResponse("<!doctype html><title>closed</title>This session is not open.", 410)
    total = session["amount_total"]
    what = "Save a card" if total is None else f"Pay ${total / 100:.2f}"
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<title>Local Stripe</title><style>{_STYLE}</style></head><body><main>
<h1>Local Stripe</h1><p><strong>No real money.</strong> {html.escape(what)} with the card 4242.</p>
<form method="post"><button name="do" value="pay">{html.escape(what)}</button>
<button name="do" value="leave">Go back</button></form></main></body></html>"""
    return HTMLResponse(page)


async def answer(world: World, request: Request, name: str) -> Response:
    """Do what was pressed, and lead back."""
    session = world.get("checkout.session", name)
    if (await request.body()) != b"do=pay":
        return RedirectResponse(session["cancel_url"] or "/", _SEE_OTHER)
    checkout.pay(world, session, cards.make_card(world, "visa", "4242", None))
    return RedirectResponse(_back(session), _SEE_OTHER)


def _back(session: dict[str, Any]) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])
