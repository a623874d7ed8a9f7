"""Customers, payment methods, intents, charges, refunds, disputes."""

import hashlib
from typing import Any

from tests.stripe_local.problems import ProblemError, missing
from tests.stripe_local.world import World

FEE_BPS, FEE_FIXED = 290, 30
DISPUTE_FEE = 1500
_TEST_CARDS = {
    "pm_card_visa": ("visa", "4242", ""),
    "pm_card_chargeDeclined": ("visa", "0002", "generic_decline"),
    "pm_card_authenticationRequired": ("visa", "3184", "authentication_required"),
    "pm_card_createDispute": ("visa", "0259", "dispute"),
}


def fee(amount: int) -> int:
    """Return Stripe's fee for a domestic card: 2.9 % + 30 cents, rounded half up."""
    return (amount * FEE_BPS + 5000) // 10000 + FEE_FIXED


def create_customer(world: World, params: dict[str, Any]) -> Any:
    """POST /v1/customers."""
    return world.new(
        "customer",
        "cus",
        email=params.get("email"),
        metadata=params.get("metadata", {}),
        invoice_settings={"default_payment_method": None},
    )


def delete_customer(world: World, name: str) -> Any:
    """DELETE /v1/customers/{id}: its cards are detached."""
    world.get("customer", name)
    for card in world.all("payment_method"):
        if card["customer"] == name:
            detach(world, card["id"])
    del world.objects[name]
    return {"id": name, "object": "customer", "deleted": True}


def make_card(world: World, brand: str, last4: str, fingerprint: str | None = None) -> Any:
    """Make a card payment method."""
    return world.new(
        "payment_method",
        "pm",
        type="card",
        billing_details={"email": None},
        card={
            "brand": brand,
            "last4": last4,
            "exp_month": 8,
            "exp_year": 2035,
            "funding": "credit",
            "country": "US",
            "fingerprint": fingerprint or _fingerprint(brand + last4),
        },
    )


def find_card(world: World, name: str) -> tuple[Any, str]:
    """Return a payment method and how it behaves: charged, or declined with that code.

    Test cards have well-known names; a saved one behaves as the card that it was made from.
    """
    if name in _TEST_CARDS:
        brand, last4, behaviour = _TEST_CARDS[name]
        return make_card(world, brand, last4), behaviour
    card = world.get("payment_method", name)
    last4 = card["card"]["last4"]
    return card, next((b for _, number, b in _TEST_CARDS.values() if number == last4), "")


def create_intent(world: World, params: dict[str, Any]) -> Any:
    """POST /v1/payment_intents; confirmed at once where asked."""
    amount = positive(params, "amount")
    intent = world.new(
        "payment_intent",
        "pi",
        amount=amount,
        amount_capturable=0,
        amount_received=0,
        capture_method="automatic",
        confirmation_method="automatic",
        currency=params.get("currency", "usd"),
        customer=params.get("customer"),
        description=params.get("description"),
        metadata=params.get("metadata", {}),
        payment_method_types=["card"],
        setup_future_usage=params.get("setup_future_usage"),
        status="requires_payment_method",
    )
    intent["client_secret"] = f"{intent['id']}_secret_local"
    if params.get("confirm") != "true":
        return intent
    card, behaviour = find_card(world, params.get("payment_method") or "")
    if behaviour in {"generic_decline", "authentication_required"}:
        # A refused confirmation leaves the intent; off session nobody can authenticate.
        code = "card_declined" if behaviour == "generic_decline" else behaviour
        intent["last_payment_error"] = {"type": "card_error", "code": code}
        world.emit("payment_intent.payment_failed", intent)
        raise ProblemError(402, "Your card was declined.", code=code, kind="card_error")
    charged = charge(world, intent, card)
    if behaviour == "dispute":
        dispute(world, charged, charged["amount"])
    return intent


def charge(world: World, intent: Any, card: Any) -> Any:
    """Take the money of an intent from a card."""
    amount = intent["amount"]
    made = world.new(
        "charge",
        "ch",
        amount=amount,
        amount_captured=amount,
        amount_refunded=0,
        billing_details=card["billing_details"],
        captured=True,
        currency=intent["currency"],
        customer=intent["customer"],
        description=intent["description"],
        disputed=False,
        fraud_details={},
        metadata=dict(intent["metadata"]),
        outcome={"type": "authorized", "network_status": "approved_by_network"},
        paid=True,
        payment_intent=intent["id"],
        payment_method=card["id"],
        payment_method_details={"type": "card", "card": dict(card["card"])},
        refunded=False,
        status="succeeded",
    )
    row = world.book("charge", amount, made["id"], fee=fee(amount))
    made["balance_transaction"] = row["id"]
    intent.update(
        status="succeeded",
        amount_received=amount,
        latest_charge=made["id"],
        payment_method=card["id"],
    )
    world.emit("charge.succeeded", made)
    world.emit("payment_intent.succeeded", intent)
    return made


def create_refund(world: World, params: dict[str, Any]) -> Any:
    """POST /v1/refunds; Stripe keeps its fee."""
    name = params.get("charge")
    if name is None:
        intent = world.get("payment_intent", params.get("payment_intent") or "")
        name = intent["latest_charge"]
    charged = world.get("charge", name or "")
    left = charged["amount"] - charged["amount_refunded"]
    amount = int(params.get("amount") or left)
    if not 0 < amount <= left:
        raise ProblemError(
            400,
            "Refund amount is greater than unrefunded amount on charge",
            code="charge_already_refunded",
            param="amount",
        )
    made = world.new(
        "refund",
        "re",
        amount=amount,
        charge=charged["id"],
        currency=charged["currency"],
        payment_intent=charged["payment_intent"],
        reason=params.get("reason"),
        status="succeeded",
        destination_details={"card": {"type": "refund"}, "type": "card"},
    )
    made["balance_transaction"] = world.book("refund", -amount, made["id"])["id"]
    charged["amount_refunded"] += amount
    charged["refunded"] = charged["amount_refunded"] == charged["amount"]
    world.emit("refund.created", made)
    world.emit("charge.refunded", charged)
    return made


def fail_refund(world: World, refunded: Any) -> Any:
    """Take a refund back: its bank did not accept it."""
    refunded.update(status="failed", failure_reason="expired_or_canceled_card")
    world.book("refund_failure", refunded["amount"], refunded["id"])
    charged = world.get("charge", refunded["charge"])
    charged["amount_refunded"] -= refunded["amount"]
    charged["refunded"] = False
    world.emit("refund.failed", refunded)
    return refunded


def dispute(world: World, charged: Any, amount: int, *, withdraw: bool = True) -> Any:
    """Let the card's bank dispute a charge; its money leaves at once unless told otherwise."""
    made = world.new(
        "dispute",
        "dp",
        amount=amount,
        balance_transactions=[],
        charge=charged["id"],
        currency=charged["currency"],
        evidence={},
        evidence_details={"due_by": world.now() + 7 * 86400, "submission_count": 0},
        is_charge_refundable=False,
        payment_intent=charged["payment_intent"],
        payment_method_details={"type": "card", "card": {"brand": "visa"}},
        reason="fraudulent",
        status="needs_response",
        enhanced_eligibility_types=[],
    )
    charged["disputed"] = True
    world.emit("charge.dispute.created", made)
    if withdraw:
        withdraw_funds(world, made)
    return made


def withdraw_funds(world: World, disputed: Any) -> None:
    """Take the disputed amount and the dispute fee."""
    row = world.book(
        "adjustment", -disputed["amount"], disputed["id"], fee=DISPUTE_FEE, category="dispute"
    )
    disputed["balance_transactions"].append(row)
    world.emit("charge.dispute.funds_withdrawn", disputed)


def close_dispute(world: World, disputed: Any, status: str) -> None:
    """End a dispute; a won one gives the amount back, and Stripe keeps its fee."""
    disputed["status"] = status
    if status == "won" and disputed["balance_transactions"]:
        row = world.book(
            "adjustment", disputed["amount"], disputed["id"], category="dispute_reversal"
        )
        disputed["balance_transactions"].append(row)
        world.emit("charge.dispute.funds_reinstated", disputed)
    world.emit("charge.dispute.closed", disputed)


def reinstate(world: World, disputed: Any, amount: int, fee: int) -> None:
    """Give money of a dispute back later, in part or whole, and perhaps some of its fee."""
    row = world.book("adjustment", amount, disputed["id"], fee=-fee, category="dispute_reversal")
    disputed["balance_transactions"].append(row)
    world.emit("charge.dispute.funds_reinstated", disputed)


def save_card(world: World, card: Any, customer: str) -> Any:
    """Attach a card to a customer for later use."""
    card["customer"] = customer
    return world.new(
        "setup_intent",
        "seti",
        customer=customer,
        payment_method=card["id"],
        payment_method_types=["card"],
        status="succeeded",
        usage="off_session",
    )


def detach(world: World, name: str) -> Any:
    """POST /v1/payment_methods/{id}/detach."""
    card = world.get("payment_method", name)
    card["customer"] = None
    return card


def positive(params: dict[str, Any], name: str) -> int:
    """Return a whole number above zero.

    Raises:
        ProblemError: 400.
    """
    given = params.get(name)
    if given is None:
        raise missing(name)
    if not str(given).isdigit() or int(given) < 1:
        raise ProblemError(
            400, f"Invalid {name}", code="parameter_invalid_integer", param=name, kept=False
        )
    return int(given)


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
