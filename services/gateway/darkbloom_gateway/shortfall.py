"""Why a hold was refused, as the consumer is told: what it needs, and what there is."""

from darkbloom_mesh.errors import MeshError

from darkbloom_gateway.cached import Cached
from darkbloom_gateway.errors import (
    ApiError,
    account_frozen,
    insufficient_funds,
    key_cap_reached,
    unauthenticated,
    unavailable,
)
from darkbloom_gateway.model import HoldRefusal, Plan, Price
from darkbloom_gateway.ports import Balance, Billing, PriceList

_PER_MILLION = 1_000_000
_GONE = ("KEY_REVOKED", "KEY_UNKNOWN", "NOT_FOUND")


class Shortfalls:
    """Explains refusals; only they pay for what it asks.

    Args:
        billing: knows the balance.
        prices: rows in force.
    """

    def __init__(self, billing: Billing, prices: Cached[PriceList]) -> None:
        self._billing = billing
        self._prices = prices

    async def explain(self, refusal: HoldRefusal, plan: Plan) -> ApiError:
        """Return what the consumer is told.

        402 only on a confirmed shortfall: whatever else keeps the ledger from holding is 503.
        """
        if refusal.reason in _GONE:
            return unauthenticated("invalid api key")
        if refusal.reason not in ("INSUFFICIENT_FUNDS", "KEY_CAP_REACHED", "ACCOUNT_FROZEN"):
            return unavailable()
        balance = await self._balance(plan.account_id)
        if refusal.reason == "ACCOUNT_FROZEN":
            return account_frozen(balance.debt_micros if balance is not None else None)

        facts = {
            "required_micro_usd": refusal.required_micros,
            "available_micro_usd": refusal.available_micros,
        }
        if balance is not None:
            facts["balance_micro_usd"] = balance.balance_micros
        tokens = await self._affordable(refusal.available_micros, plan)
        if tokens is not None:
            facts["max_affordable_tokens"] = tokens
        if refusal.reason == "KEY_CAP_REACHED":
            return key_cap_reached(facts)
        return insufficient_funds(facts)

    async def _balance(self, account_id: str) -> Balance | None:
        try:
            return await self._billing.balance(account_id)
        except MeshError:
            return None

    async def _affordable(self, available_micros: int, plan: Plan) -> int | None:
        try:
            prices = await self._prices.get()
        except MeshError:
            return None
        row = next((row for row in prices.rows if row.build == plan.build), prices.fallback)
        return affordable_tokens(available_micros, plan.prompt_bound, plan.output_bound, row)


def affordable_tokens(
    available_micros: int, prompt_bound: int, output_bound: int, price: Price
) -> int:
    """Return the largest output bound, up to the one asked for, that the money would hold.

    Args:
        available_micros: money.
        prompt_bound: tokens of the prompt that a hold must cover.
        output_bound: what was asked for.
        price: row of the build.
    """
    left = available_micros - prompt_bound * price.input_micros // _PER_MILLION
    if left < 0 or available_micros < price.minimum_charge_micros:
        return 0
    if price.output_micros <= 0:
        return output_bound
    # The largest count whose cost, rounded down as billing does, is not above what is left.
    return min(output_bound, ((left + 1) * _PER_MILLION - 1) // price.output_micros)
