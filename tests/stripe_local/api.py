"""The routes of Stripe's API v1 that billing uses."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.stripe_local import cards, checkout, connect
from tests.stripe_local.problems import ProblemError
from tests.stripe_local.world import World, page


@dataclass(frozen=True)
class Call:
    """One API call, decoded."""

    method: str
    path: str
    params: dict[str, Any]
    account: str
    """Connected account that the call acts for; empty: the platform."""


def answer(world: World, call: Call) -> Any:
    """Return what Stripe would answer.

    Raises:
        ProblemError: its refusal.
    """
    if call.account and call.account not in world.objects:
        raise ProblemError(
            403,
            f"The provided key does not have access to account '{call.account}'.",
            code="account_invalid",
            kept=False,
        )
    for method, pattern, handler in _ROUTES:
        found = pattern.fullmatch(call.path)
        if method == call.method and found is not None:
            return _expanded(world, handler(world, call, *found.groups()), call)
    raise ProblemError(404, f"Unrecognized request URL ({call.method}: {call.path}).", kept=False)


def _session(world: World, call: Call, name: str) -> Any:
    return checkout.shown(world.get("checkout.session", name))


def _expire(world: World, call: Call, name: str) -> Any:
    return checkout.shown(checkout.expire(world, world.get("checkout.session", name)))


def _get(kind: str) -> Callable[[World, Call, str], Any]:
    def handler(world: World, call: Call, name: str) -> Any:
        return world.get(kind, name, call.account)

    return handler


def _list(kind: str, *filters: str) -> Callable[[World, Call], Any]:
    def handler(world: World, call: Call) -> Any:
        rows = [
            row
            for row in world.all(kind, call.account)
            if all(row[f] == call.params[f] for f in filters if f in call.params)
            and row.get("created", 0) >= int(call.params.get("created", {}).get("gte", 0))
        ]
        return _page(rows, call)

    return handler


def _sessions(world: World, call: Call) -> Any:
    found = _list("checkout.session")(world, call)
    return {**found, "data": [checkout.shown(each) for each in found["data"]]}


def _events(world: World, call: Call) -> Any:
    kinds = call.params.get("types", [])
    since = int(call.params.get("created", {}).get("gte", 0))
    rows = [
        row
        for row in world.all("event")
        if row.get("account", "") == call.account
        and row["created"] >= since
        and (not kinds or row["type"] in kinds)
        and call.params.get("type", row["type"]) == row["type"]
    ]
    # Listed as a connected account, they do not say again whose they are.
    rows = [{name: value for name, value in row.items() if name != "account"} for row in rows]
    return _page(rows, call)


def _balance(world: World, call: Call) -> Any:
    amount = {"amount": world.balance(call.account), "currency": "usd", "source_types": {}}
    return {
        "available": [amount],
        "connect_reserved": [],
        "livemode": False,
        "object": "balance",
        "pending": [{"amount": 0, "currency": "usd", "source_types": {}}],
    }


def _balance_transactions(world: World, call: Call) -> Any:
    if "payout" in call.params:
        rows = connect.payout_rows(world, call.account, call.params["payout"])
    else:
        rows = world.all("balance_transaction", call.account)
    since = call.params.get("created", {}).get("gte")
    rows = [row for row in rows if since is None or row["created"] >= int(since)]
    return _page(rows, call)


def _page(rows: list[Any], call: Call) -> Any:
    after = call.params.get("starting_after")
    if after is not None:
        at = next((n for n, row in enumerate(rows) if row["id"] == after), len(rows))
        rows = rows[at + 1 :]
    return page(rows, call.path, int(call.params.get("limit", 10)))


def _expanded(world: World, found: Any, call: Call) -> Any:
    """Replace ids by objects where asked, two levels deep; lists are not expanded."""
    made = dict(found)
    for path in call.params.get("expand", []):
        head, _, rest = path.partition(".")
        child = world.objects.get(made.get(head) or "")
        if child is not None:
            grand = world.objects.get(child.get(rest) or "") if rest else None
            made[head] = {**child, rest: grand} if grand is not None else child
    return made


def _route(method: str, path: str, handler: Any) -> tuple[str, re.Pattern[str], Any]:
    return method, re.compile("/v1" + path.replace("{}", "([A-Za-z0-9_]+)")), handler


_ROUTES = [
    _route("POST", "/customers", lambda w, c: cards.create_customer(w, c.params)),
    _route("GET", "/customers/{}", _get("customer")),
    _route("DELETE", "/customers/{}", lambda w, c, name: cards.delete_customer(w, name)),
    _route("POST", "/checkout/sessions", lambda w, c: checkout.shown(checkout.create(w, c.params))),
    _route("GET", "/checkout/sessions", _sessions),
    _route("GET", "/checkout/sessions/{}", _session),
    _route("POST", "/checkout/sessions/{}/expire", _expire),
    _route("POST", "/payment_intents", lambda w, c: cards.create_intent(w, c.params)),
    _route("GET", "/payment_intents", _list("payment_intent", "customer")),
    _route("GET", "/payment_intents/{}", _get("payment_intent")),
    _route("GET", "/charges/{}", _get("charge")),
    _route("GET", "/charges", _list("charge", "payment_intent", "customer")),
    _route("POST", "/refunds", lambda w, c: cards.create_refund(w, c.params)),
    _route("GET", "/refunds", _list("refund", "charge", "payment_intent")),
    _route("GET", "/refunds/{}", _get("refund")),
    _route("GET", "/disputes/{}", _get("dispute")),
    _route("GET", "/disputes", _list("dispute", "charge", "payment_intent")),
    _route("GET", "/balance", _balance),
    _route("GET", "/balance_transactions", _balance_transactions),
    _route("GET", "/balance_transactions/{}", _get("balance_transaction")),
    _route("GET", "/payment_methods/{}", _get("payment_method")),
    _route("POST", "/payment_methods/{}/detach", lambda w, c, name: cards.detach(w, name)),
    _route("GET", "/setup_intents/{}", _get("setup_intent")),
    _route("POST", "/accounts", lambda w, c: connect.create_account(w, c.params)),
    _route("GET", "/accounts/{}", _get("account")),
    _route("POST", "/accounts/{}", lambda w, c, name: connect.update_account(w, name, c.params)),
    _route("DELETE", "/accounts/{}", lambda w, c, name: connect.close_account(w, name)),
    _route("POST", "/accounts/{}/login_links", lambda w, c, name: connect.login_link(w, name)),
    _route(
        "GET",
        "/accounts/{}/external_accounts/{}",
        lambda w, c, account, name: connect.external(w, account, name),
    ),
    _route("POST", "/account_links", lambda w, c: connect.account_link(w, c.params)),
    _route("POST", "/transfers", lambda w, c: connect.create_transfer(w, c.params)),
    _route("GET", "/transfers", _list("transfer", "transfer_group", "destination")),
    _route("GET", "/transfers/{}", _get("transfer")),
    _route(
        "POST",
        "/transfers/{}/reversals",
        lambda w, c, name: connect.reverse_transfer(w, name, c.params),
    ),
    _route("POST", "/payouts", lambda w, c: connect.create_payout(w, c.params, c.account)),
    _route("GET", "/payouts", _list("payout", "status")),
    _route("GET", "/payouts/{}", _get("payout")),
    _route("GET", "/events", _events),
    _route("GET", "/events/{}", _get("event")),
]
