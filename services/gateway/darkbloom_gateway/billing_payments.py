"""Billing's payments for the control plane: calls with a deadline, refusals in a person's words.

The words of `billing.md` §9 are here, in one table.
"""

from collections.abc import Awaitable, Mapping
from typing import TypeVar

import grpc
from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom.billing.v1.payment_service_pb2_grpc import PaymentServiceStub
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom_mesh.errors import InvalidArgumentError, MeshError

from darkbloom_gateway.clients import answer
from darkbloom_gateway.errors import ApiError, bad_request, unavailable

T = TypeVar("T")
STRIPE_S = 45.0
"""Longest wait for what billing asks Stripe: two of its answers and some."""
_REFUSAL_KEY = "darkbloom-refusal"
_FIELDS = {"amount_micros": "amount_usd", "threshold_micros": "threshold_usd"}
_FIELDS |= {"monthly_cap_micros": "monthly_cap_usd"}
_REFUSALS: Mapping[str, tuple[int, str, str]] = {
    "NOT_ONBOARDED": (403, "not_onboarded", "set up payouts first"),
    "INSUFFICIENT_WITHDRAWABLE": (400, "insufficient_withdrawable", "not so much is withdrawable"),
    "INSTANT_UNAVAILABLE": (400, "instant_unavailable", "an instant payout needs a debit card"),
    "ACCOUNT_GONE": (409, "stripe_account_gone", "the payout account is gone: unlink it"),
    "RECREATE_REQUIRED": (
        409,
        "stripe_account_recreate_required",
        "the payout account has another country or agreement: unlink it and set up payouts again",
    ),
    "ACCOUNT_FROZEN": (403, "forbidden", "this account owes money or was frozen"),
    "STOPPED": (503, "billing_error", "withdrawals are stopped for now"),
    "NO_CARD": (400, "invalid_request_error", "save a card first"),
}
_REASONS: Mapping[int, tuple[int, str, str]] = {
    ErrorReason.ERROR_REASON_PAYMENTS_NOT_CONFIGURED: (
        503,
        "billing_error",
        "payments are not configured here",
    ),
    ErrorReason.ERROR_REASON_DEPOSITS_STOPPED: (
        503,
        "billing_error",
        "deposits are stopped for now",
    ),
    ErrorReason.ERROR_REASON_STRIPE_FAILED: (
        502,
        "stripe_error",
        "stripe did not answer; nothing was taken",
    ),
    ErrorReason.ERROR_REASON_IDEMPOTENCY_CONFLICT: (
        409,
        "conflict",
        "the same idempotency key came before with other contents",
    ),
    ErrorReason.ERROR_REASON_NOT_FOUND: (404, "not_found", "there is no such thing of yours"),
}


def stripe_error(message: str) -> ApiError:
    """502: what Stripe did is not known, or it did nothing."""
    return ApiError(502, "stripe_error", message)


class PaymentsClient:
    """Deposits, cards, webhooks and payouts over one channel.

    Every method raises ApiError.
    """

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub: PaymentServiceStub = PaymentServiceStub(channel)
        self._timeout_s = timeout_s

    async def options(self) -> pb.GetPaymentOptionsResponse:
        """Return what can be paid with."""
        request = pb.GetPaymentOptionsRequest()
        return await _ask(self._stub.GetPaymentOptions(request, timeout=self._timeout_s))

    async def create_deposit(self, request: pb.CreateDepositRequest) -> pb.Deposit:
        """Open a Checkout session."""
        return (await _ask(self._stub.CreateDeposit(request, timeout=STRIPE_S))).deposit

    async def deposit(self, account_id: str, session_id: str) -> pb.Deposit:
        """Return a session of an account."""
        request = pb.GetDepositRequest(account_id=account_id, session_id=session_id)
        return (await _ask(self._stub.GetDeposit(request, timeout=self._timeout_s))).deposit

    async def deliver(
        self, source: pb.EventSource.ValueType, payload: bytes, signature: str
    ) -> bool:
        """Hand a webhook in; returns whether it is new."""
        request = pb.DeliverEventRequest(source=source, payload=payload, signature=signature)
        return (await _ask(self._stub.DeliverEvent(request, timeout=self._timeout_s))).stored

    async def create_card_setup(self, request: pb.CreateCardSetupRequest) -> str:
        """Return where a card can be saved."""
        return (await _ask(self._stub.CreateCardSetup(request, timeout=STRIPE_S))).url

    async def auto_top_up(self, account_id: str) -> pb.AutoTopUp:
        """Return card and settings."""
        request = pb.GetAutoTopUpRequest(account_id=account_id)
        return (await _ask(self._stub.GetAutoTopUp(request, timeout=self._timeout_s))).auto_top_up

    async def set_auto_top_up(self, request: pb.SetAutoTopUpRequest) -> pb.AutoTopUp:
        """Change the settings."""
        return (await _ask(self._stub.SetAutoTopUp(request, timeout=self._timeout_s))).auto_top_up

    async def delete_card(self, account_id: str) -> None:
        """Forget the saved card."""
        request = pb.DeleteCardRequest(account_id=account_id)
        await _ask(self._stub.DeleteCard(request, timeout=STRIPE_S))

    async def start_onboarding(
        self, request: pb.StartOnboardingRequest
    ) -> pb.StartOnboardingResponse:
        """Return where onboarding goes on."""
        return await _ask(self._stub.StartOnboarding(request, timeout=STRIPE_S))

    async def payout_account(self, account_id: str, *, refresh: bool) -> pb.PayoutAccount:
        """Return the connected account."""
        request = pb.GetPayoutAccountRequest(account_id=account_id, refresh=refresh)
        return (await _ask(self._stub.GetPayoutAccount(request, timeout=STRIPE_S))).account

    async def dashboard(self, account_id: str) -> str:
        """Return a link into Stripe."""
        request = pb.CreateDashboardLinkRequest(account_id=account_id)
        return (await _ask(self._stub.CreateDashboardLink(request, timeout=STRIPE_S))).url

    async def unlink(self, account_id: str) -> None:
        """Unlink the connected account."""
        request = pb.UnlinkPayoutAccountRequest(account_id=account_id)
        await _ask(self._stub.UnlinkPayoutAccount(request, timeout=self._timeout_s))

    async def withdraw(self, request: pb.CreateWithdrawalRequest) -> pb.Withdrawal:
        """Withdraw earned money."""
        return (await _ask(self._stub.CreateWithdrawal(request, timeout=STRIPE_S))).withdrawal

    async def withdrawals(
        self, account_id: str, limit: int, page_token: str
    ) -> pb.ListWithdrawalsResponse:
        """Return a page of withdrawals."""
        page = PageRequest(page_size=limit, page_token=page_token)
        request = pb.ListWithdrawalsRequest(account_id=account_id, page=page)
        return await _ask(self._stub.ListWithdrawals(request, timeout=self._timeout_s))


async def _ask(call: Awaitable[T]) -> T:
    try:
        return await answer(call)
    except MeshError as error:
        raise told(error) from None


def told(error: MeshError) -> ApiError:
    """Return what a person is told of an error of billing."""
    if isinstance(error, ApiError):
        return error
    if error.reason == ErrorReason.ERROR_REASON_PAYOUT_REFUSED:
        status, kind, message = _REFUSALS[error.metadata[_REFUSAL_KEY]]
        available = error.metadata.get("darkbloom-available-micros")
        facts = {"available_micro_usd": int(available)} if available else None
        return ApiError(status, kind, message, facts=facts)
    if isinstance(error, InvalidArgumentError):
        field = _FIELDS.get(error.field or "", error.field)
        return bad_request(f"{field} {error.message}", param=field)
    if error.reason in _REASONS:
        return ApiError(*_REASONS[error.reason])
    return unavailable()
