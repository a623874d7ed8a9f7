"""Connected accounts, transfers to them, payouts from them."""

from typing import Any

from tests.stripe_local.cards import positive
from tests.stripe_local.problems import ProblemError, missing, unknown
from tests.stripe_local.world import World, page

_DUE = ["external_account", "individual.dob.day", "tos_acceptance.date"]


def create_account(world: World, params: dict[str, Any]) -> Any:
    """POST /v1/accounts."""
    made = world.new(
        "account",
        "acct",
        business_type=params.get("business_type"),
        capabilities={"transfers": "inactive"},
        charges_enabled=False,
        controller={"type": "application", "is_controller": True},
        country=params.get("country", "US"),
        default_currency="usd",
        details_submitted=False,
        email=params.get("email"),
        metadata=params.get("metadata", {}),
        payouts_enabled=False,
        requirements=requirements(_DUE, "requirements.past_due"),
        future_requirements=requirements([], None),
        settings={"payouts": {"schedule": {"interval": "daily", "delay_days": 2}}},
        tos_acceptance={
            "date": None,
            "ip": None,
            "user_agent": None,
            "service_agreement": params.get("tos_acceptance", {}).get("service_agreement", "full"),
        },
        type=params.get("type", "express"),
        external_accounts=page([], "/external_accounts"),
    )
    wanted = params.get("settings", {}).get("payouts", {}).get("schedule", {})
    made["settings"]["payouts"]["schedule"].update(wanted)
    return made


def update_account(world: World, name: str, params: dict[str, Any]) -> Any:
    """POST /v1/accounts/{id}: the payout schedule and metadata."""
    account = world.get("account", name)
    wanted = params.get("settings", {}).get("payouts", {}).get("schedule", {})
    account["settings"]["payouts"]["schedule"].update(wanted)
    account["metadata"].update(params.get("metadata", {}))
    return account


def delete_account(world: World, name: str) -> Any:
    """Forget an account, whatever it holds."""
    world.get("account", name)
    del world.objects[name]
    return {"id": name, "object": "account", "deleted": True}


def close_account(world: World, name: str) -> Any:
    """DELETE /v1/accounts/{id} as its platform may: not while it holds money."""
    world.get("account", name)
    if world.balance(name):
        raise ProblemError(400, "This account holds a balance and cannot be deleted.", kept=False)
    return delete_account(world, name)


def requirements(due: list[str], disabled: str | None) -> dict[str, Any]:
    """Return what Stripe still wants to know."""
    return {
        "alternatives": [],
        "current_deadline": None,
        "currently_due": due,
        "disabled_reason": disabled,
        "errors": [],
        "eventually_due": due,
        "past_due": [],
        "pending_verification": [],
    }


def account_link(world: World, params: dict[str, Any]) -> Any:
    """POST /v1/account_links."""
    for name in ("account", "type", "refresh_url", "return_url"):
        if name not in params:
            raise missing(name)
    account = world.get("account", params["account"])
    return {
        "created": world.now(),
        "expires_at": world.now() + 300,
        "object": "account_link",
        "url": f"https://connect.stripe.invalid/setup/e/{account['id']}/{world.id('link')}",
    }


def login_link(world: World, name: str) -> Any:
    """POST /v1/accounts/{id}/login_links."""
    account = world.get("account", name)
    if not account["details_submitted"]:
        raise ProblemError(400, "Cannot create a login link for an account in onboarding.")
    return {
        "created": world.now(),
        "object": "login_link",
        "url": f"https://connect.stripe.invalid/express/{name}/{world.id('login')}",
    }


def create_transfer(world: World, params: dict[str, Any]) -> Any:
    """POST /v1/transfers."""
    amount = positive(params, "amount")
    target = params.get("destination")
    if not target:
        raise missing("destination")
    if target not in world.objects:
        raise ProblemError(
            400,
            f"No such destination: '{target}'",
            code="resource_missing",
            param="destination",
        )
    account = world.get("account", target)
    if account["capabilities"].get("transfers") != "active":
        raise ProblemError(
            400,
            "Your destination account needs to have the transfers capability enabled.",
            code="insufficient_capabilities_for_transfer",
        )
    if world.balance() < amount:
        raise ProblemError(
            400,
            "You have insufficient available funds in your Stripe account.",
            code="balance_insufficient",
        )
    made = world.new(
        "transfer",
        "tr",
        amount=amount,
        amount_reversed=0,
        currency=params.get("currency", "usd"),
        description=params.get("description"),
        destination=target,
        metadata=params.get("metadata", {}),
        reversed=False,
        source_type="card",
        transfer_group=params.get("transfer_group"),
    )
    made["reversals"] = page([], f"/v1/transfers/{made['id']}/reversals")
    made["balance_transaction"] = world.book("transfer", -amount, made["id"])["id"]
    made["destination_payment"] = world.id("py")
    world.book("payment", amount, made["destination_payment"], account=target)
    world.emit("transfer.created", made)
    return made


def reverse_transfer(world: World, name: str, params: dict[str, Any]) -> Any:
    """POST /v1/transfers/{id}/reversals."""
    transfer = world.get("transfer", name)
    left = transfer["amount"] - transfer["amount_reversed"]
    amount = int(params.get("amount") or left)
    if not 0 < amount <= left:
        raise ProblemError(400, "Transfer is already reversed.", code="transfer_already_reversed")
    if world.balance(transfer["destination"]) < amount:
        raise ProblemError(
            400, "Insufficient funds at the destination", code="balance_insufficient"
        )
    made = world.new(
        "transfer_reversal", "trr", amount=amount, currency="usd", transfer=transfer["id"]
    )
    made["balance_transaction"] = world.book("transfer_refund", amount, made["id"])["id"]
    world.book("payment_refund", -amount, made["id"], account=transfer["destination"])
    transfer["amount_reversed"] += amount
    transfer["reversed"] = transfer["amount_reversed"] == transfer["amount"]
    transfer["reversals"]["data"].append(made)
    world.emit("transfer.reversed", transfer)
    return made


def create_payout(
    world: World, params: dict[str, Any], account: str, *, automatic: bool = False
) -> Any:
    """POST /v1/payouts on a connected account."""
    amount = positive(params, "amount")
    owner = world.get("account", account)
    if world.balance(account) < amount:
        raise ProblemError(
            400,
            "You have insufficient funds in your Stripe account for this transfer.",
            code="balance_insufficient",
        )
    method = params.get("method", "standard")
    banks = owner["external_accounts"]["data"]
    usable = [b for b in banks if method == "standard" or "instant" in _methods(b)]
    if not usable:
        code = "instant_payouts_unsupported" if banks else "no_external_account"
        raise ProblemError(400, "No destination for this payout.", code=code)
    made = world.new(
        "payout",
        "po",
        account=account,
        amount=amount,
        arrival_date=world.now() + (1800 if method == "instant" else 2 * 86400),
        automatic=automatic,
        currency="usd",
        description=params.get("description"),
        destination=usable[0]["id"],
        metadata=params.get("metadata", {}),
        method=method,
        source_type="card",
        status="in_transit",
        type=usable[0]["object"],
        reconciliation_status="completed" if automatic else "not_applicable",
    )
    made["balance_transaction"] = world.book("payout", -amount, made["id"], account=account)["id"]
    world.emit("payout.created", made, account)
    return made


def finish_payout(world: World, payout: Any, account: str, status: str) -> Any:
    """Let a payout arrive, fail or be canceled; failed money is back on the balance."""
    payout["status"] = status
    if status in {"failed", "canceled"}:
        row = world.book("payout_failure", payout["amount"], payout["id"], account=account)
        payout["failure_balance_transaction"] = row["id"]
        payout["failure_code"] = "account_closed" if status == "failed" else None
    world.emit(f"payout.{status}", payout, account)
    return payout


def sweep(world: World, account: str) -> Any:
    """Pay the whole balance of an account out, as Stripe's schedule does."""
    return create_payout(world, {"amount": world.balance(account)}, account, automatic=True)


def payout_rows(world: World, account: str, payout: str) -> list[Any]:
    """Return the balance transactions that an automatic payout paid out, and its own."""
    made = world.get("payout", payout, account)
    if not made["automatic"]:
        raise ProblemError(400, "Only automatic payouts can be broken down.", param="payout")
    rows = world.all("balance_transaction", account)[::-1]
    own = next(n for n, row in enumerate(rows) if row["id"] == made["balance_transaction"])
    earlier = (n for n in range(own) if rows[n]["type"] == "payout")
    start = max(earlier, default=-1) + 1
    return rows[start : own + 1][::-1]


def external(world: World, account: str, name: str) -> Any:
    """Return one external account."""
    for bank in world.get("account", account)["external_accounts"]["data"]:
        if bank["id"] == name:
            return bank
    raise unknown("external_account", name)


def _methods(bank: dict[str, Any]) -> list[str]:
    methods: list[str] = bank.get("available_payout_methods", ["standard"])
    return methods
