"""What happened at Stripe since a moment: for a database that was set back to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from darkbloom_billing.payments.acquirer import asked, deleting
from darkbloom_billing.payments.errors import StripeFailedError
from darkbloom_billing.payments.model import CENT_MICROS, Fault, Moved, SessionKind
from darkbloom_billing.payments.sdk import Stripe

_PAGE = 100
_MAX_PAGES = 1000
_OURS = "inference_credits"


@dataclass(frozen=True, slots=True, kw_only=True)
class PastSession:
    """A payment page, or an automatic top-up, that was opened by us."""

    external_id: str
    """Stripe's id of the page; empty for a top-up, which has none."""
    session_id: str
    account_id: str
    kind: SessionKind
    total_micros: int
    payment_intent: str
    paid: bool
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTransfer:
    """Money that was sent to a connected account."""

    moved: Moved
    withdrawal_id: str
    """Empty: it was not sent by us."""
    stripe_account_id: str
    amount_micros: int
    created_at: datetime


class StripePast:
    """Lists by time; everything oldest first.

    Args:
        client: API of the platform.
    """

    def __init__(self, client: Stripe) -> None:
        self._client = client

    async def events(
        self, since: datetime, kinds: Iterable[str], stripe_account_id: str = ""
    ) -> Sequence[dict[str, Any]]:
        """Return events as their webhooks carried them; Stripe keeps them for 30 days.

        A connected account that was deleted there has none.

        Raises:
            StripeFailedError: Stripe does not answer, or has more than anybody should replay.
        """
        params = {**_since(since), "types": sorted(kinds)}
        options = {"stripe_account": stripe_account_id} if stripe_account_id else {}
        found = await self._all(self._client.v1.events.list_async, params, options)
        return [each.to_dict(for_json=True) for each in found]

    async def sessions(self, since: datetime) -> Sequence[PastSession]:
        """Return the payment pages of ours that were opened since; raises as `events`."""
        found = await self._all(self._client.v1.checkout.sessions.list_async, _since(since), {})
        return [past for each in found if (past := _page(each)) is not None]

    async def top_ups(self, since: datetime) -> Sequence[PastSession]:
        """Return the automatic top-ups since; raises as `events`."""
        found = await self._all(self._client.v1.payment_intents.list_async, _since(since), {})
        return [past for each in found if (past := _top_up(each)) is not None]

    async def refunded(self, payment_intent: str) -> bool:
        """Say whether all of a payment was given back; raises as `events`."""
        async with asked():
            found = await self._client.v1.payment_intents.retrieve_async(
                payment_intent, {"expand": ["latest_charge"]}
            )
            charge: Any = found.latest_charge
            return charge is not None and bool(charge.refunded)

    async def transfers(self, since: datetime) -> Sequence[PastTransfer]:
        """Return the transfers since; raises as `events`."""
        found = await self._all(self._client.v1.transfers.list_async, _since(since), {})
        return [_transfer(each) for each in found]

    async def _all(self, call: Any, params: dict[str, Any], options: dict[str, Any]) -> list[Any]:
        params = {**params, "limit": _PAGE}
        rows: list[Any] = []
        async with deleting() if options else asked():
            for _ in range(_MAX_PAGES):
                page = await call(params, options)
                rows += page.data
                if not page.has_more:
                    return rows[::-1]
                params["starting_after"] = page.data[-1].id
            raise StripeFailedError(Fault.UNKNOWN, "too_much_past")
        return []


def _since(moment: datetime) -> dict[str, Any]:
    return {"created": {"gte": int(moment.timestamp())}}


def _page(found: Any) -> PastSession | None:
    metadata = _metadata(found)
    if metadata.get("purchase_type") != _OURS:
        return None
    setup = found.mode == SessionKind.SETUP.value
    return PastSession(
        external_id=found.id,
        session_id=metadata.get("billing_session_id", ""),
        account_id=found.client_reference_id or "",
        kind=SessionKind.SETUP if setup else SessionKind.DEPOSIT,
        total_micros=0 if setup else (found.amount_total or 0) * CENT_MICROS,
        payment_intent=_reference(found.payment_intent),
        paid=found.payment_status == "paid",
        created_at=datetime.fromtimestamp(found.created, UTC),
    )


def _top_up(found: Any) -> PastSession | None:
    metadata = _metadata(found)
    if (metadata.get("purchase_type"), metadata.get("source")) != (_OURS, SessionKind.AUTO.value):
        return None
    return PastSession(
        external_id="",
        session_id=metadata.get("billing_session_id", ""),
        account_id=metadata.get("consumer_key", ""),
        kind=SessionKind.AUTO,
        total_micros=found.amount * CENT_MICROS,
        payment_intent=found.id,
        paid=found.status == "succeeded",
        created_at=datetime.fromtimestamp(found.created, UTC),
    )


def _transfer(found: Any) -> PastTransfer:
    payment, target = found.destination_payment, found.destination
    return PastTransfer(
        moved=Moved(
            transfer_id=found.id,
            destination_payment=payment if isinstance(payment, str) else str(payment.id),
            reversed_cents=found.amount_reversed,
        ),
        withdrawal_id=_metadata(found).get("withdrawal_id", ""),
        stripe_account_id=target if isinstance(target, str) else str(target.id),
        amount_micros=found.amount * CENT_MICROS,
        created_at=datetime.fromtimestamp(found.created, UTC),
    )


def _reference(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value.id)


def _metadata(found: Any) -> dict[str, str]:
    return dict(found.metadata.to_dict()) if found.metadata is not None else {}
