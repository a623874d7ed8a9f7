"""The payout rail of Connect Express behind its port."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from darkbloom_billing.payments.acquirer import asked, deleting
from darkbloom_billing.payments.errors import StripeFailedError
from darkbloom_billing.payments.faults import classify
from darkbloom_billing.payments.model import (
    CENT_MICROS,
    AccountStatus,
    Connected,
    Moved,
    PaidOut,
    Quote,
    Withdrawal,
)
from darkbloom_billing.payments.sdk import Stripe

_PAGE = 100
_MAX_PAGES = 100
_REJECTED = "rejected"
_FULL_AGREEMENT = frozenset({"US"})
"""Countries whose accounts take cards as well; others only receive transfers."""


class ConnectRail:
    """Transfers to Express accounts, and instant payouts from them.

    Args:
        client: API of the platform.
    """

    def __init__(self, client: Stripe) -> None:
        self._client = client

    def quote(self, withdrawal: Quote) -> Quote:
        """See `ports.PayoutRail`: what was asked is what this rail does."""
        return withdrawal

    async def submit(self, withdrawal: Withdrawal, key: str) -> Moved:
        """See `ports.PayoutRail`."""
        params = {
            "amount": withdrawal.quote.net_micros // CENT_MICROS,
            "currency": "usd",
            "destination": withdrawal.stripe_account_id,
            "transfer_group": withdrawal.withdrawal_id,
            "metadata": {"withdrawal_id": withdrawal.withdrawal_id},
        }
        async with asked():
            made = await self._client.v1.transfers.create_async(params, {"idempotency_key": key})
            return _moved(made)

    async def pay_out(self, withdrawal: Withdrawal, key: str) -> PaidOut:
        """See `ports.PayoutRail`."""
        params = {
            "amount": withdrawal.quote.net_micros // CENT_MICROS,
            "currency": "usd",
            "method": "instant",
            "metadata": {"withdrawal_id": withdrawal.withdrawal_id},
        }
        options = {"idempotency_key": key, "stripe_account": withdrawal.stripe_account_id}
        async with asked():
            return _paid_out(await self._client.v1.payouts.create_async(params, options))

    async def fetch_transfer(self, transfer_id: str) -> Moved:
        """See `ports.PayoutRail`."""
        async with asked():
            return _moved(await self._client.v1.transfers.retrieve_async(transfer_id))

    async def fetch_payout(self, stripe_account_id: str, payout_id: str) -> PaidOut:
        """See `ports.PayoutRail`."""
        options = {"stripe_account": stripe_account_id}
        async with asked():
            return _paid_out(await self._client.v1.payouts.retrieve_async(payout_id, {}, options))

    async def traced(self, stripe_account_id: str, payout_id: str) -> Sequence[str]:
        """See `ports.PayoutRail`."""
        options = {"stripe_account": stripe_account_id}
        params: dict[str, Any] = {"payout": payout_id, "limit": _PAGE}
        sources: list[str] = []
        for _ in range(_MAX_PAGES):
            async with asked():
                page = await self._client.v1.balance_transactions.list_async(params, options)
                sources += [row.source for row in page.data if isinstance(row.source, str)]
                if not page.has_more:
                    break
                params["starting_after"] = page.data[-1].id
        return sources

    async def payouts(self, stripe_account_id: str) -> Sequence[PaidOut]:
        """See `ports.PayoutRail`."""
        options = {"stripe_account": stripe_account_id}
        async with asked():
            found = await self._client.v1.payouts.list_async({"limit": _PAGE}, options)
            return [_paid_out(each) for each in found.data]

    async def create_account(self, account_id: str, country: str, email: str, key: str) -> str:
        """See `ports.PayoutRail`."""
        params: dict[str, Any] = {
            "type": "express",
            "country": country,
            "business_type": "individual",
            "capabilities": {"transfers": {"requested": True}},
            "metadata": {"account_id": account_id},
        }
        if (agreement := _agreement(country)) != "full":
            params["tos_acceptance"] = {"service_agreement": agreement}
        if email:
            params["email"] = email
        async with asked():
            made = await self._client.v1.accounts.create_async(params, {"idempotency_key": key})
            return str(made.id)

    async def account(self, stripe_account_id: str) -> Connected:
        """See `ports.PayoutRail`."""
        async with asked():
            found = await self._client.v1.accounts.retrieve_async(stripe_account_id)
            return connected(found.to_dict())

    async def onboarding_link(
        self, stripe_account_id: str, return_url: str, refresh_url: str
    ) -> str:
        """See `ports.PayoutRail`."""
        params = {
            "account": stripe_account_id,
            "type": "account_onboarding",
            "return_url": return_url,
            "refresh_url": refresh_url,
        }
        async with asked():
            return str((await self._client.v1.account_links.create_async(params)).url)

    async def dashboard_link(self, stripe_account_id: str) -> str:
        """See `ports.PayoutRail`."""
        async with asked():
            made = await self._client.v1.accounts.login_links.create_async(stripe_account_id)
            return str(made.url)

    async def delete_account(self, stripe_account_id: str) -> None:
        """See `ports.PayoutRail`."""
        async with deleting():
            await self._client.v1.accounts.delete_async(stripe_account_id)

    async def schedule_daily(self, stripe_account_id: str) -> None:
        """See `ports.PayoutRail`."""
        settings = {"payouts": {"schedule": {"interval": "daily"}}}
        async with asked():
            await self._client.v1.accounts.update_async(stripe_account_id, {"settings": settings})

    def classify_error(self, error: Exception) -> StripeFailedError:
        """See `ports.PayoutRail`."""
        return classify(error)


def connected(account: dict[str, Any]) -> Connected:
    """Return what an account object says; `ready` means that payouts are enabled."""
    needs = account.get("requirements") or {}
    disabled = needs.get("disabled_reason") or ""
    banks = (account.get("external_accounts") or {}).get("data") or []
    bank = next((each for each in banks if each.get("default_for_currency")), None)
    bank = bank or (banks[0] if banks else {})
    schedule = ((account.get("settings") or {}).get("payouts") or {}).get("schedule") or {}
    kinds = {"bank_account": "bank", "card": "card"}
    return Connected(
        stripe_account_id=account["id"],
        status=_status(account, disabled),
        country=account.get("country") or "",
        destination_type=kinds.get(bank.get("object", ""), ""),
        destination_last4=bank.get("last4") or "",
        fingerprint=bank.get("fingerprint") or "",
        instant_eligible=any(
            "instant" in (each.get("available_payout_methods") or []) for each in banks
        ),
        currently_due=tuple(needs.get("currently_due") or ()),
        manual_payouts=schedule.get("interval") == "manual",
        agreement_fits=_fits(account),
    )


def _fits(account: dict[str, Any]) -> bool:
    """Say whether the agreement is the one that we ask for; one that is not told is taken as it."""
    agreement = (account.get("tos_acceptance") or {}).get("service_agreement")
    country = account.get("country")
    return not agreement or not country or agreement == _agreement(country)


def _agreement(country: str) -> str:
    return "full" if country in _FULL_AGREEMENT else "recipient"


def _status(account: dict[str, Any], disabled: str) -> AccountStatus:
    if disabled.startswith(_REJECTED):
        return AccountStatus.REJECTED
    if account.get("payouts_enabled"):
        return AccountStatus.READY
    return AccountStatus.RESTRICTED if account.get("details_submitted") else AccountStatus.PENDING


def _moved(found: Any) -> Moved:
    payment = found.destination_payment
    return Moved(
        transfer_id=found.id,
        destination_payment=payment if isinstance(payment, str) else str(payment.id),
        reversed_cents=found.amount_reversed,
    )


def _paid_out(found: Any) -> PaidOut:
    arrival = found.arrival_date
    metadata = found.metadata
    return PaidOut(
        payout_id=found.id,
        status=found.status,
        automatic=found.automatic,
        arrival_at=datetime.fromtimestamp(arrival, UTC) if arrival else None,
        withdrawal_id=metadata.to_dict().get("withdrawal_id", "") if metadata else "",
    )
