"""What Stripe keeps of an erased account goes as well: owed to the outbox, done at least once."""

from collections.abc import Mapping

from darkbloom_billing.books.outbox import Handler, Job
from darkbloom_billing.payments.ports import Acquirer, PayoutRail

CUSTOMER = "erase.stripe_customer"
ACCOUNT = "erase.stripe_account"


def erase_customers(acquirer: Acquirer) -> Mapping[str, Handler]:
    """Return what deletes customers, and with each its saved cards."""

    async def erase(job: Job) -> None:
        await acquirer.forget_customer(job.key)

    return {CUSTOMER: erase}


def erase_accounts(rail: PayoutRail) -> Mapping[str, Handler]:
    """Return what deletes connected accounts.

    Stripe refuses while one holds money that its next payout will carry; the job waits for that.
    """

    async def erase(job: Job) -> None:
        await rail.delete_account(job.key)

    return {ACCOUNT: erase}
