"""Checkout sessions: payment and card set-up."""

from typing import Any

from tests.stripe_local import cards
from tests.stripe_local.problems import ProblemError, missing
from tests.stripe_local.world import World

_LIFETIME_S = 86400


def create(world: World, params: dict[str, Any]) -> Any:
    """POST /v1/checkout/sessions."""
    mode = params.get("mode") or ""
    if mode not in {"payment", "setup"}:
        raise missing("mode")
    if "success_url" not in params:
        raise missing("success_url")
    items = params.get("line_items", [])
    if mode == "payment" and not items:
        raise missing("line_items")
    total = sum(
        int(item["price_data"]["unit_amount"]) * int(item.get("quantity", 1)) for item in items
    )
    session = world.new(
        "checkout.session",
        "cs_test",
        amount_subtotal=total if mode == "payment" else None,
        amount_total=total if mode == "payment" else None,
        automatic_tax={"enabled": False, "liability": None, "provider": None, "status": None},
        cancel_url=params.get("cancel_url"),
        client_reference_id=params.get("client_reference_id"),
        currency="usd",
        custom_fields=[],
        custom_text={},
        customer=params.get("customer"),
        customer_email=params.get("customer_email"),
        expires_at=int(params.get("expires_at") or world.now() + _LIFETIME_S),
        metadata=params.get("metadata", {}),
        mode=mode,
        payment_method_options={},
        payment_method_types=params.get("payment_method_types", ["card"]),
        payment_status="unpaid" if mode == "payment" else "no_payment_required",
        phone_number_collection={"enabled": False},
        shipping_options=[],
        status="open",
        success_url=params["success_url"],
        total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        ui_mode="hosted",
    )
    session["url"] = f"{world.pages}/pay/{session['id']}"
    # What the intent will carry; a real session keeps it out of sight as well.
    world.objects[session["id"]]["payment_method_options"] = {
        "_intent": params.get("payment_intent_data", {})
    }
    return session


def shown(session: dict[str, Any]) -> dict[str, Any]:
    """Return a session without what is kept out of sight."""
    return {**session, "payment_method_options": {}}


def pay(world: World, session: Any, card: Any, *, asynchronous: bool = False) -> Any:
    """Complete a session with a card; an asynchronous payment is decided later."""
    if session["status"] != "open":
        raise ProblemError(400, "This session is not open.", code="session_not_open")
    session["status"] = "complete"
    if session["mode"] == "setup":
        session["setup_intent"] = cards.save_card(world, card, session["customer"])["id"]
        world.emit("checkout.session.completed", shown(session))
        return session
    data = session["payment_method_options"]["_intent"]
    intent = cards.create_intent(
        world,
        {
            "amount": session["amount_total"],
            "customer": session["customer"],
            "metadata": data.get("metadata", {}),
            "description": data.get("description"),
            "setup_future_usage": data.get("setup_future_usage"),
        },
    )
    session["payment_intent"] = intent["id"]
    session["customer_details"] = {"email": session["customer_email"]}
    if asynchronous:
        intent["status"] = "processing"
        intent["payment_method"] = card["id"]
        world.emit("checkout.session.completed", shown(session))
        return session
    _take(world, session, intent, card)
    world.emit("checkout.session.completed", shown(session))
    return session


def decide(world: World, session: Any, *, succeeded: bool) -> Any:
    """Decide an asynchronous payment."""
    intent = world.get("payment_intent", session["payment_intent"])
    if succeeded:
        _take(world, session, intent, world.get("payment_method", intent["payment_method"]))
        world.emit("checkout.session.async_payment_succeeded", shown(session))
        return session
    intent["status"] = "requires_payment_method"
    world.emit("checkout.session.async_payment_failed", shown(session))
    return session


def expire(world: World, session: Any) -> Any:
    """POST /v1/checkout/sessions/{id}/expire."""
    if session["status"] != "open":
        raise ProblemError(400, "Only open sessions can be expired.", code="session_not_open")
    session["status"] = "expired"
    world.emit("checkout.session.expired", shown(session))
    return session


def _take(world: World, session: Any, intent: Any, card: Any) -> None:
    if intent["setup_future_usage"] == "off_session" and session["customer"]:
        card["customer"] = session["customer"]
    cards.charge(world, intent, card)
    session["payment_status"] = "paid"
