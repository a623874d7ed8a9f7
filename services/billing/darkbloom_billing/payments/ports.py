"""What payments need from the world, in their own words."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from darkbloom_billing.payments.model import (
    Card,
    Checkout,
    Connected,
    Dispute,
    Moved,
    PaidOut,
    Payment,
    Quote,
    Refund,
    Session,
    Withdrawal,
)


class Acquirer(Protocol):
    """Takes money from consumers. Every method raises StripeFailedError."""

    async def create_customer(self, account_id: str, email: str) -> str:
        """Return the id of a new customer, the same for the same account."""
        ...

    async def open_checkout(
        self, session: Session, *, customer_id: str, email: str, save_card: bool, host: str
    ) -> Checkout:
        """Open a hosted page for a session, the same for the same session."""
        ...

    async def checkout(self, external_id: str) -> Checkout:
        """Return a hosted page as it is now."""
        ...

    async def payment(self, payment_intent: str) -> Payment:
        """Return a payment as it is now."""
        ...

    async def charge_saved(self, session: Session, customer_id: str, card: str) -> Payment:
        """Charge a saved card without its holder, once per session.

        Raises:
            CardRefusedError: The card was not charged.
        """
        ...

    async def refunds(self, charge_id: str) -> Sequence[Refund]:
        """Return the refunds of a charge, oldest first."""
        ...

    async def dispute(self, dispute_id: str) -> Dispute:
        """Return a dispute as it is now."""
        ...

    async def set_up_card(self, setup_intent: str) -> Card:
        """Return the card that a set-up saved."""
        ...

    async def forget_card(self, payment_method: str) -> None:
        """Detach a card; one that is gone already is fine."""
        ...

    async def forget_customer(self, customer_id: str) -> None:
        """Delete a customer with every saved card; one that is gone already is fine."""
        ...

    async def balance_cents(self) -> int:
        """Return everything that Stripe holds for us, pending included."""
        ...

    async def sources_since(self, since: datetime) -> Sequence[tuple[str, str, int]]:
        """Return (transaction, source, net cents) of balance transactions since a time."""
        ...


class PayoutRail(Protocol):
    """Sends money to providers. Every method raises StripeFailedError with what it proves."""

    def quote(self, withdrawal: Quote) -> Quote:
        """Return what a withdrawal costs and delivers on this rail."""
        ...

    async def submit(self, withdrawal: Withdrawal, key: str) -> Moved:
        """Move the net to the connected account, once per key."""
        ...

    async def pay_out(self, withdrawal: Withdrawal, key: str) -> PaidOut:
        """Pay the net out at once, once per key."""
        ...

    async def fetch_transfer(self, transfer_id: str) -> Moved:
        """Return a transfer as it is now."""
        ...

    async def fetch_payout(self, stripe_account_id: str, payout_id: str) -> PaidOut:
        """Return a payout as it is now."""
        ...

    async def traced(self, stripe_account_id: str, payout_id: str) -> Sequence[str]:
        """Return what a scheduled payout carried: payments, and failed payouts that returned."""
        ...

    async def payouts(self, stripe_account_id: str) -> Sequence[PaidOut]:
        """Return the newest payouts of a connected account."""
        ...

    async def create_account(self, account_id: str, country: str, email: str, key: str) -> str:
        """Return the id of a new connected account, the same for the same key."""
        ...

    async def account(self, stripe_account_id: str) -> Connected:
        """Return a connected account as it is now."""
        ...

    async def onboarding_link(
        self, stripe_account_id: str, return_url: str, refresh_url: str
    ) -> str:
        """Return where its holder goes on with onboarding."""
        ...

    async def dashboard_link(self, stripe_account_id: str) -> str:
        """Return where its holder sees it."""
        ...

    async def delete_account(self, stripe_account_id: str) -> None:
        """Delete a connected account; one that is gone already is fine.

        Stripe refuses while the account holds money.
        """
        ...

    async def schedule_daily(self, stripe_account_id: str) -> None:
        """Let the account pay out by schedule."""
        ...

    def classify_error(self, error: Exception) -> Exception:
        """Return the error of ours that says what a failed call proves."""
        ...
