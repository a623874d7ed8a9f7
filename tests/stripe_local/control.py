"""The control API: what customers, banks and the network do. `POST /control/<name>` with JSON."""

import base64
from collections.abc import Callable
from typing import Any

from tests.stripe_local import cards, checkout, connect, delivery
from tests.stripe_local.problems import ProblemError
from tests.stripe_local.world import World

Given = dict[str, Any]


def endpoint(world: World, given: Given) -> Any:
    """Register a webhook endpoint; the same URL replaces the earlier one."""
    made = {
        "url": given["url"],
        "secret": given["secret"],
        "connect": bool(given.get("connect")),
        "events": given.get("events", []),
    }
    world.endpoints = [each for each in world.endpoints if each["url"] != made["url"]]
    world.endpoints.append(made)
    return {}


def pay(world: World, given: Given) -> Any:
    """Pay or set up a session with a card."""
    session = world.get("checkout.session", given["session"])
    card = cards.make_card(
        world, given.get("brand", "visa"), given.get("last4", "4242"), given.get("fingerprint")
    )
    return checkout.shown(
        checkout.pay(world, session, card, asynchronous=bool(given.get("asynchronous")))
    )


def decide(world: World, given: Given) -> Any:
    """Decide an asynchronous payment: `succeeded` true or false."""
    session = world.get("checkout.session", given["session"])
    return checkout.shown(checkout.decide(world, session, succeeded=given["succeeded"]))


def expire(world: World, given: Given) -> Any:
    """Let a session expire."""
    return checkout.shown(checkout.expire(world, world.get("checkout.session", given["session"])))


def refund(world: World, given: Given) -> Any:
    """Refund a charge in part or whole, as an operator in the dashboard does."""
    return cards.create_refund(world, {k: str(v) for k, v in given.items()})


def dispute(world: World, given: Given) -> Any:
    """Dispute a charge; `withdraw` false leaves the money for now."""
    charged = world.get("charge", given["charge"])
    return cards.dispute(
        world,
        charged,
        given.get("amount", charged["amount"]),
        withdraw=given.get("withdraw", True),
    )


def withdraw_dispute(world: World, given: Given) -> Any:
    """Take the money of a dispute that was only an inquiry."""
    found = world.get("dispute", given["dispute"])
    cards.withdraw_funds(world, found)
    return found


def close_dispute(world: World, given: Given) -> Any:
    """Close a dispute: `won` or `lost`."""
    found = world.get("dispute", given["dispute"])
    cards.close_dispute(world, found, given["status"])
    return found


def reinstate(world: World, given: Given) -> Any:
    """Give money of a closed dispute back after all."""
    found = world.get("dispute", given["dispute"])
    cards.reinstate(world, found, given["amount"], given.get("fee", 0))
    return found


def fail_refund(world: World, given: Given) -> Any:
    """Let the bank send a refund back: Stripe has the money again."""
    return cards.fail_refund(world, world.get("refund", given["refund"]))


def account(world: World, given: Given) -> Any:
    """Let a person finish onboarding, or Stripe restrict an account."""
    found = world.get("account", given["account"])
    for name in ("details_submitted", "payouts_enabled"):
        if name in given:
            found[name] = given[name]
    if "agreement" in given:
        found["tos_acceptance"]["service_agreement"] = given["agreement"]
    if "transfers" in given:
        found["capabilities"]["transfers"] = given["transfers"]
    if "due" in given or "disabled_reason" in given:
        found["requirements"] = connect.requirements(
            given.get("due", []), given.get("disabled_reason")
        )
    if "bank" in given or "card" in given:
        found["external_accounts"]["data"] = [_external(world, given)]
    world.emit("account.updated", found, found["id"])
    return found


def close_account(world: World, given: Given) -> Any:
    """Let a connected account disappear."""
    return connect.delete_account(world, given["account"])


def onboard(world: World, given: Given) -> Any:
    """Let a person finish onboarding with a bank account, or `card` a debit card."""
    return account(
        world,
        {
            "details_submitted": True,
            "payouts_enabled": True,
            "transfers": "active",
            "due": [],
            **({} if "card" in given else {"bank": {}}),
            **given,
        },
    )


def payout(world: World, given: Given) -> Any:
    """Let a payout arrive, fail or be canceled."""
    found = world.get("payout", given["payout"], given["account"])
    return connect.finish_payout(world, found, given["account"], given["status"])


def sweep(world: World, given: Given) -> Any:
    """Run the payout schedule of an account."""
    return connect.sweep(world, given["account"])


def reverse(world: World, given: Given) -> Any:
    """Reverse a transfer."""
    return connect.reverse_transfer(world, given["transfer"], {})


def fund(world: World, given: Given) -> Any:
    """Top the platform's balance up, or take from it."""
    return world.book("topup" if given["amount"] > 0 else "payout", given["amount"], None)


def fault(world: World, given: Given) -> Any:
    """Plant a failure, `when` `before` or `after` the effect; `kind` says which.

    `error` answers 500, `hang` never answers, `cut` breaks off, `refuse` answers 400 with `code`.
    """
    world.faults.append(
        {
            "method": given.get("method", "POST"),
            "path": given["path"],
            "kind": given["kind"],
            "when": given.get("when", "before"),
            "times": given.get("times", 1),
            "code": given.get("code", ""),
        }
    )
    return {}


def bend(world: World, given: Given) -> Any:
    """Let an object lack a key, as no promise of Stripe allows."""
    del world.objects[given["id"]][given["drop"]]
    return {}


def heal(world: World, given: Given) -> Any:
    """Remove every planted failure."""
    world.faults.clear()
    return {}


def automatic(world: World, given: Given) -> Any:
    """Say whether events are delivered by themselves."""
    world.automatic = given["on"]
    return {}


def take(world: World, given: Given) -> Any:
    """Hand out what waits, signed, instead of posting it; the queue is empty afterwards."""
    taken = []
    for waiting in world.queue:
        where, body, header = delivery.signed(world, waiting)
        taken.append(
            {"url": where["url"], "body": base64.b64encode(body).decode(), "signature": header}
        )
    world.queue = []
    return {"deliveries": taken}


def state(world: World, given: Given) -> Any:
    """Return balance, calls and objects of a kind."""
    kind, of = given.get("kind", ""), given.get("account", "")
    return {
        "balance": world.balance(of),
        "calls": world.calls,
        "queue": len(world.queue),
        "objects": world.all(kind, of) if kind else [],
    }


COMMANDS: dict[str, Callable[[World, Given], Any]] = {
    each.__name__: each
    for each in (
        endpoint,
        pay,
        decide,
        expire,
        refund,
        dispute,
        withdraw_dispute,
        close_dispute,
        reinstate,
        fail_refund,
        account,
        close_account,
        onboard,
        payout,
        sweep,
        reverse,
        fund,
        fault,
        bend,
        heal,
        automatic,
        take,
        state,
    )
}


def run(world: World, name: str, given: Given) -> Any:
    """Run a command.

    Raises:
        ProblemError: unknown, or impossible now.
    """
    if name not in COMMANDS:
        raise ProblemError(404, f"no such command: {name}")
    try:
        return COMMANDS[name](world, given)
    except KeyError as error:
        raise ProblemError(400, f"missing field {error}") from None


def _external(world: World, given: Given) -> Any:
    if "card" in given:
        card = given["card"]
        return {
            "id": world.id("card"),
            "object": "card",
            "brand": "Visa",
            "country": "US",
            "currency": "usd",
            "funding": "debit",
            "last4": card.get("last4", "5556"),
            "fingerprint": card.get("fingerprint", "fp_debit"),
            "available_payout_methods": ["standard", "instant"],
            "default_for_currency": True,
        }
    bank = given["bank"]
    return {
        **dict.fromkeys(("account_holder_name", "account_type", "customer")),
        "account_holder_type": "individual",
        "available_payout_methods": ["standard"],
        "bank_name": "STRIPE TEST BANK",
        "country": "US",
        "currency": "usd",
        "default_for_currency": True,
        "fingerprint": bank.get("fingerprint", "fp_bank"),
        "id": world.id("ba"),
        "last4": bank.get("last4", "6789"),
        "metadata": {},
        "object": "bank_account",
        "routing_number": "110000000",
        "status": "new",
    }
