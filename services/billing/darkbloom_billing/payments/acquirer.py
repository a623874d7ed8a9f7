"""Stripe Checkout, intents, refunds and disputes behind the port."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import stripe

from darkbloom_billing.payments.errors import CardRefusedError, StripeFailedError
from darkbloom_billing.payments.faults import classify
from darkbloom_billing.payments.model import (
    CENT_MICROS,
    Card,
    Checkout,
    Dispute,
    DisputeMove,
    Fault,
    Payment,
    Refund,
    Session,
    SessionKind,
)
from darkbloom_billing.payments.sdk import Stripe

_GONE = frozenset({"resource_missing", "account_invalid"})
_PAGE = 100
_MAX_PAGES = 10
_EXPAND_FEE = ["latest_charge.balance_transaction"]


@asynccontextmanager
async def asked() -> AsyncIterator[None]:
    """Rebuild the SDK's errors.

    Raises:
        StripeFailedError: Stripe refused, failed or did not answer.
    """
    try:
        yield
    except stripe.StripeError as error:
        # The SDK's error carries bodies; ours carries one word.
        raise classify(error) from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # An answer in another shape than the API promises: what it did is open.
        raise StripeFailedError(Fault.UNKNOWN, "unreadable") from error


@asynccontextmanager
async def deleting() -> AsyncIterator[None]:
    """As `asked`, and what is to be deleted may be gone already.

    Only Stripe's own codes say that: a key that may not delete is refused in the same class.
    """
    async with asked():
        try:
            yield
        except (stripe.InvalidRequestError, stripe.PermissionError) as error:
            if _code(error) not in _GONE:
                raise


def _code(error: stripe.StripeError) -> str | None:
    """Return Stripe's code; the SDK keeps that of a 403 in the body alone."""
    return error.code or getattr(error.error, "code", None)


class StripeAcquirer:
    """One platform account at Stripe.

    Args:
        client: Its API.
        success_url: Where a paid session leads; the session's id is added.
        cancel_url: Where a left one leads.
    """

    def __init__(self, client: Stripe, *, success_url: str, cancel_url: str) -> None:
        self._client = client
        self._success_url = success_url
        self._cancel_url = cancel_url

    async def create_customer(self, account_id: str, email: str) -> str:
        """See `ports.Acquirer`."""
        params: dict[str, Any] = {"metadata": {"account_id": account_id}}
        if email:
            params["email"] = email
        async with asked():
            made = await self._client.v1.customers.create_async(
                params, {"idempotency_key": f"cus-{account_id}-{bool(email)}"}
            )
            return str(made.id)

    async def open_checkout(
        self, session: Session, *, customer_id: str, email: str, save_card: bool, host: str
    ) -> Checkout:
        """See `ports.Acquirer`."""
        new = session.new
        joiner = "&" if "?" in self._success_url else "?"
        params: dict[str, Any] = {
            "client_reference_id": new.account_id,
            "success_url": f"{self._success_url}{joiner}session_id={{CHECKOUT_SESSION_ID}}",
            "cancel_url": self._cancel_url,
            "payment_method_types": ["card"],
            "metadata": _metadata(session, host),
        }
        if customer_id:
            params["customer"] = customer_id
        elif email:
            params["customer_email"] = email
        if new.kind is SessionKind.SETUP:
            params |= {"mode": "setup", "currency": "usd"}
            params.pop("payment_method_types")
        else:
            intent: dict[str, Any] = {"metadata": _metadata(session, host)}
            if save_card:
                intent["setup_future_usage"] = "off_session"
            params |= {
                "mode": "payment",
                "line_items": _lines(session),
                "payment_intent_data": intent,
            }
        async with asked():
            made = await self._client.v1.checkout.sessions.create_async(
                params, {"idempotency_key": f"cs-{new.session_id}"}
            )
            return _checkout(made)

    async def checkout(self, external_id: str) -> Checkout:
        """See `ports.Acquirer`."""
        async with asked():
            return _checkout(await self._client.v1.checkout.sessions.retrieve_async(external_id))

    async def payment(self, payment_intent: str) -> Payment:
        """See `ports.Acquirer`."""
        async with asked():
            return _payment(
                await self._client.v1.payment_intents.retrieve_async(
                    payment_intent, {"expand": _EXPAND_FEE}
                )
            )

    async def charge_saved(self, session: Session, customer_id: str, card: str) -> Payment:
        """See `ports.Acquirer`."""
        params = {
            "amount": session.total_cents,
            "currency": "usd",
            "customer": customer_id,
            "payment_method": card,
            "payment_method_types": ["card"],
            "off_session": True,
            "confirm": True,
            "metadata": _metadata(session, ""),
            "expand": _EXPAND_FEE,
        }
        async with asked():
            try:
                made = await self._client.v1.payment_intents.create_async(
                    params, {"idempotency_key": f"pi-{session.new.session_id}"}
                )
            except stripe.CardError as error:
                raise CardRefusedError(classify(error).word) from None
            return _payment(made)

    async def refunds(self, charge_id: str) -> Sequence[Refund]:
        """See `ports.Acquirer`."""
        params: dict[str, Any] = {"charge": charge_id, "limit": _PAGE}
        refunds: list[Refund] = []
        for _ in range(_MAX_PAGES):
            async with asked():
                page = await self._client.v1.refunds.list_async(params)
                refunds += [
                    Refund(refund_id=each.id, amount_cents=each.amount, status=each.status or "")
                    for each in page.data
                ]
                if not page.has_more:
                    return refunds[::-1]
                params["starting_after"] = page.data[-1].id
        # The oldest ones decide how the line is shared: without them nothing can be booked.
        raise StripeFailedError(Fault.UNKNOWN, "too_many_refunds")

    async def dispute(self, dispute_id: str) -> Dispute:
        """See `ports.Acquirer`."""
        async with asked():
            # A dispute carries nothing of ours; its charge has what its payment was given.
            found = await self._client.v1.disputes.retrieve_async(
                dispute_id, {"expand": ["charge"]}
            )
            return Dispute(
                dispute_id=found.id,
                charge_id=_reference(found.charge),
                session_id=_session_of(found.charge),
                amount_cents=found.amount,
                status=found.status,
                moves=tuple(
                    DisputeMove(transaction=row.id, amount_cents=row.amount, fee_cents=row.fee)
                    for row in found.balance_transactions
                ),
            )

    async def set_up_card(self, setup_intent: str) -> Card:
        """See `ports.Acquirer`."""
        async with asked():
            found = await self._client.v1.setup_intents.retrieve_async(
                setup_intent, {"expand": ["payment_method"]}
            )
            method = found.payment_method
            return Card(
                payment_method=method.id,
                brand=method.card.brand,
                last4=method.card.last4,
                fingerprint=method.card.fingerprint or "",
            )

    async def forget_card(self, payment_method: str) -> None:
        """See `ports.Acquirer`."""
        async with asked():
            try:
                await self._client.v1.payment_methods.detach_async(payment_method)
            except stripe.InvalidRequestError:
                return

    async def forget_customer(self, customer_id: str) -> None:
        """See `ports.Acquirer`."""
        async with deleting():
            await self._client.v1.customers.delete_async(customer_id)

    async def balance_cents(self) -> int:
        """See `ports.Acquirer`."""
        async with asked():
            found = await self._client.v1.balance.retrieve_async()
            rows = [*found.available, *found.pending]
            return sum(row.amount for row in rows if row.currency == "usd")

    async def sources_since(self, since: datetime) -> Sequence[tuple[str, str, int]]:
        """See `ports.Acquirer`."""
        params: dict[str, Any] = {"limit": _PAGE, "created": {"gte": int(since.timestamp())}}
        rows: list[tuple[str, str, int]] = []
        for _ in range(_MAX_PAGES):
            async with asked():
                page = await self._client.v1.balance_transactions.list_async(params)
                rows += [(row.id, _reference(row.source), row.net) for row in page.data]
                if not page.has_more:
                    break
                params["starting_after"] = page.data[-1].id
        return rows


def _lines(session: Session) -> list[dict[str, Any]]:
    named = [("Inference credit", session.new.amount_micros)]
    if session.new.line_micros:
        named.append(("Payment processing", session.new.line_micros))
    return [
        {
            "quantity": 1,
            "price_data": {
                "currency": "usd",
                "unit_amount": micros // CENT_MICROS,
                "product_data": {"name": name},
            },
        }
        for name, micros in named
    ]


def _metadata(session: Session, host: str) -> dict[str, str]:
    found = {
        "app": "darkbloom",
        "platform": "darkbloom",
        "purchase_type": "inference_credits",
        "source": session.new.kind.value,
        "billing_session_id": session.new.session_id,
        "consumer_key": session.new.account_id,
    }
    return found | ({"coordinator_host": host} if host else {})


def _session_of(charge: Any) -> str:
    """Return our session's id in the metadata of an expanded charge."""
    metadata = getattr(charge, "metadata", None)
    return str(metadata.to_dict().get("billing_session_id", "")) if metadata is not None else ""


def _checkout(found: Any) -> Checkout:
    metadata = found.metadata.to_dict() if found.metadata is not None else {}
    return Checkout(
        external_id=found.id,
        session_id=str(metadata.get("billing_session_id", "")),
        account_id=found.client_reference_id or "",
        mode=found.mode,
        status=found.status or "",
        payment_status=found.payment_status,
        amount_cents=found.amount_total or 0,
        currency=found.currency or "",
        payment_intent=_reference(found.payment_intent),
        setup_intent=_reference(found.setup_intent),
        url=found.url or "",
    )


def _payment(found: Any) -> Payment:
    charge = found.latest_charge
    row = charge.balance_transaction if charge is not None else None
    metadata = found.metadata.to_dict() if found.metadata is not None else {}
    return Payment(
        payment_intent=found.id,
        status=found.status,
        amount_cents=found.amount_received,
        currency=found.currency,
        session_id=str(metadata.get("billing_session_id", "")),
        charge_id=charge.id if charge is not None else "",
        fee_transaction=row.id if row is not None else "",
        fee_cents=row.fee if row is not None else 0,
        card=_charged_card(charge) if charge is not None else None,
    )


def _charged_card(charge: Any) -> Card | None:
    details = charge.payment_method_details
    card = getattr(details, "card", None)
    if card is None:
        return None
    return Card(
        payment_method=_reference(charge.payment_method),
        brand=card.brand or "",
        last4=card.last4 or "",
        fingerprint=card.fingerprint or "",
    )


def _reference(value: Any) -> str:
    """Return an id, whether Stripe sent it or the whole object."""
    if value is None:
        return ""
    return value if isinstance(value, str) else str(value.id)
