"""Payments on the wire: translate, delegate, translate back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom.billing.v1.payment_service_pb2_grpc import PaymentServiceServicer
from darkbloom_mesh.interceptors import Context

from darkbloom_billing import convert as common
from darkbloom_billing.payments import convert
from darkbloom_billing.payments.connections import Connections
from darkbloom_billing.payments.deposits import Deposits
from darkbloom_billing.payments.errors import NotConfiguredError
from darkbloom_billing.payments.model import (
    INSTANT_FEE_BPS,
    INSTANT_FEE_MIN_MICROS,
    MIN_DEPOSIT_MICROS,
    MIN_WITHDRAW_MICROS,
)
from darkbloom_billing.payments.payouts import Payouts
from darkbloom_billing.payments.top_ups import TopUps
from darkbloom_billing.payments.webhooks import Inbox

T = TypeVar("T")
_EMAIL_MAX = 254


@dataclass(frozen=True, kw_only=True)
class Desks:
    """Who does the work; None where billing has no Stripe key for it."""

    deposits: Deposits | None = None
    top_ups: TopUps | None = None
    connections: Connections | None = None
    payouts: Payouts | None = None
    fee_line: bool = True
    """Consumers pay Stripe's fee as a line of its own."""


class PaymentServer(PaymentServiceServicer):
    """Deposits, cards, webhooks, connected accounts, withdrawals."""

    def __init__(self, desks: Desks, inbox: Inbox) -> None:
        self._desks = desks
        self._inbox = inbox

    async def GetPaymentOptions(
        self, request: pb.GetPaymentOptionsRequest, context: Context
    ) -> pb.GetPaymentOptionsResponse:
        """Return what can be paid with."""
        return pb.GetPaymentOptionsResponse(
            deposits=self._desks.deposits is not None,
            payouts=self._desks.payouts is not None,
            fee_line=self._desks.fee_line,
            min_deposit_micros=MIN_DEPOSIT_MICROS,
            min_withdraw_micros=MIN_WITHDRAW_MICROS,
            instant_fee_bps=INSTANT_FEE_BPS,
            instant_fee_min_micros=INSTANT_FEE_MIN_MICROS,
        )

    async def CreateDeposit(
        self, request: pb.CreateDepositRequest, context: Context
    ) -> pb.CreateDepositResponse:
        """Open a Checkout session."""
        session = await self._need(lambda d: d.deposits).create(
            common.token(request.request_id, "request_id"),
            common.token(request.account_id, "account_id"),
            request.amount_micros,
            email=_email(request.email),
            save_card=request.save_card,
            host=common.text(request.coordinator_host, "coordinator_host"),
        )
        return pb.CreateDepositResponse(deposit=convert.deposit(session))

    async def GetDeposit(
        self, request: pb.GetDepositRequest, context: Context
    ) -> pb.GetDepositResponse:
        """Return a deposit of the account."""
        session = await self._need(lambda d: d.deposits).get(
            common.token(request.account_id, "account_id"),
            common.token(request.session_id, "session_id"),
        )
        return pb.GetDepositResponse(deposit=convert.deposit(session))

    async def DeliverEvent(
        self, request: pb.DeliverEventRequest, context: Context
    ) -> pb.DeliverEventResponse:
        """Take a webhook."""
        stored = await self._inbox.take(
            convert.source(request.source), request.payload, request.signature
        )
        return pb.DeliverEventResponse(stored=stored)

    async def CreateCardSetup(
        self, request: pb.CreateCardSetupRequest, context: Context
    ) -> pb.CreateCardSetupResponse:
        """Open a session that saves a card."""
        session = await self._need(lambda d: d.deposits).create_setup(
            common.token(request.request_id, "request_id"),
            common.token(request.account_id, "account_id"),
            _email(request.email),
        )
        return pb.CreateCardSetupResponse(url=session.url)

    async def GetAutoTopUp(
        self, request: pb.GetAutoTopUpRequest, context: Context
    ) -> pb.GetAutoTopUpResponse:
        """Return card and settings."""
        found = await self._need(lambda d: d.top_ups).get(
            common.token(request.account_id, "account_id")
        )
        return pb.GetAutoTopUpResponse(auto_top_up=convert.auto_top_up(*found))

    async def SetAutoTopUp(
        self, request: pb.SetAutoTopUpRequest, context: Context
    ) -> pb.SetAutoTopUpResponse:
        """Change the settings."""
        top_ups = self._need(lambda d: d.top_ups)
        account_id = common.token(request.account_id, "account_id")
        await top_ups.set(account_id, convert.wanted(request))
        return pb.SetAutoTopUpResponse(
            auto_top_up=convert.auto_top_up(*await top_ups.get(account_id))
        )

    async def DeleteCard(
        self, request: pb.DeleteCardRequest, context: Context
    ) -> pb.DeleteCardResponse:
        """Forget the saved card."""
        await self._need(lambda d: d.top_ups).forget_card(
            common.token(request.account_id, "account_id")
        )
        return pb.DeleteCardResponse()

    async def StartOnboarding(
        self, request: pb.StartOnboardingRequest, context: Context
    ) -> pb.StartOnboardingResponse:
        """Link to the connected account's onboarding."""
        url, account = await self._need(lambda d: d.connections).onboard(
            common.token(request.account_id, "account_id"),
            common.token(request.return_url, "return_url") if request.return_url else "",
            common.token(request.refresh_url, "refresh_url") if request.refresh_url else "",
            country=convert.country(request.country),
            email=_email(request.email),
        )
        return pb.StartOnboardingResponse(url=url, account=convert.payout_account(account))

    async def GetPayoutAccount(
        self, request: pb.GetPayoutAccountRequest, context: Context
    ) -> pb.GetPayoutAccountResponse:
        """Return the mirror of the connected account."""
        account = await self._need(lambda d: d.connections).account(
            common.token(request.account_id, "account_id"), refresh=request.refresh
        )
        return pb.GetPayoutAccountResponse(account=convert.payout_account(account))

    async def CreateDashboardLink(
        self, request: pb.CreateDashboardLinkRequest, context: Context
    ) -> pb.CreateDashboardLinkResponse:
        """Link to Stripe's own dashboard."""
        url = await self._need(lambda d: d.connections).dashboard(
            common.token(request.account_id, "account_id")
        )
        return pb.CreateDashboardLinkResponse(url=url)

    async def UnlinkPayoutAccount(
        self, request: pb.UnlinkPayoutAccountRequest, context: Context
    ) -> pb.UnlinkPayoutAccountResponse:
        """Unlink the connected account."""
        await self._need(lambda d: d.connections).unlink(
            common.token(request.account_id, "account_id")
        )
        return pb.UnlinkPayoutAccountResponse()

    async def CreateWithdrawal(
        self, request: pb.CreateWithdrawalRequest, context: Context
    ) -> pb.CreateWithdrawalResponse:
        """Withdraw."""
        row = await self._need(lambda d: d.payouts).withdraw(
            common.token(request.request_id, "request_id"),
            common.token(request.account_id, "account_id"),
            request.amount_micros,
            convert.method(request.method),
        )
        return pb.CreateWithdrawalResponse(withdrawal=convert.withdrawal(row))

    async def ListWithdrawals(
        self, request: pb.ListWithdrawalsRequest, context: Context
    ) -> pb.ListWithdrawalsResponse:
        """Return a page of withdrawals."""
        size = common.page_size(request.page)
        found = await self._need(lambda d: d.payouts).page(
            common.token(request.account_id, "account_id"),
            limit=size + 1,
            after=convert.read_cursor(request.page),
        )
        page, following = common.page(found, size, convert.cursor)
        return pb.ListWithdrawalsResponse(
            withdrawals=map(convert.withdrawal, page), next_page_token=following
        )

    def _need(self, choose: Callable[[Desks], T | None]) -> T:
        desk = choose(self._desks)
        if desk is None:
            raise NotConfiguredError("billing has no stripe key")
        return desk


def _email(value: str) -> str:
    return common.token(value, "email")[:_EMAIL_MAX] if value else ""
