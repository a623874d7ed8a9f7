"""Billing's payments as far as reads of an account need them: withdrawals in pages of two."""

from typing import Any

from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom.billing.v1.payment_service_pb2_grpc import PaymentServiceServicer
from google.protobuf.timestamp_pb2 import Timestamp

PAGE = 2


class FakePayments(PaymentServiceServicer):
    """Hands out withdrawals; `payouts` off is a billing without Stripe."""

    def __init__(self, withdrawals: int = 0, *, payouts: bool = True) -> None:
        self.payouts = payouts
        self.rows = [
            pb.Withdrawal(
                withdrawal_id=f"wd_{number}",
                account_id="acct_export",
                transfer_id=f"tr_{number}",
                amount_micros=5_000_000 + number,
                fee_micros=500_000,
                net_micros=4_500_000 + number,
                method=pb.WITHDRAWAL_METHOD_INSTANT,
                status=pb.WITHDRAWAL_STATUS_MANUAL if number else pb.WITHDRAWAL_STATUS_PAID,
                create_time=Timestamp(seconds=1_800_000_000 - number),
                update_time=Timestamp(seconds=1_800_000_100),
            )
            for number in range(withdrawals)
        ]

    async def GetPaymentOptions(self, request: Any, context: Any) -> Any:
        return pb.GetPaymentOptionsResponse(payouts=self.payouts)

    async def ListWithdrawals(self, request: Any, context: Any) -> Any:
        begin = int(request.page.page_token or 0)
        rows = [row for row in self.rows if row.account_id == request.account_id]
        end = begin + PAGE
        return pb.ListWithdrawalsResponse(
            withdrawals=rows[begin:end], next_page_token=str(end) if end < len(rows) else ""
        )
