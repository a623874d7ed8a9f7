"""Whether an offer may have the prompt: its verdict, and whether the machine is the caller's."""

from typing import final

from darkbloom_gateway.errors import ApiError, internal, no_linked_machine
from darkbloom_gateway.model import Offer, Plan
from darkbloom_gateway.self_route import Route
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.verdicts import Checked, VerdictFault, VerdictRefusedError

_PERHAPS_OWN = (VerdictFault.NOT_OWN, VerdictFault.NOT_ADMITTED, VerdictFault.BELOW_FLOOR)


@final
class OfferCheck:
    """Judges the offers of one request; what could change a judgement is read again once.

    Attributes:
        own: identity keys of the caller's machines, where the request asks for them.
    """

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self.own: frozenset[bytes] = frozenset()
        self._stage = stage
        self._plan = plan
        self._clock = stage.clock
        self._asked_again = False

    async def know_own(self, *, again: bool) -> None:
        """Read which machines are the caller's; without an answer he has none to prefer."""
        try:
            self.own = await self._stage.owners.machines(self._plan.account_id, again=again)
        except ApiError:
            if self._plan.free:
                raise
        if self._plan.free and not self.own:
            raise no_linked_machine()

    async def check(self, offer: Offer) -> Checked:
        """Return what an offer's verdict says, or say why it does not count here.

        Raises:
            ApiError: It is no offer for this request, or nothing can be known now.
            VerdictRefusedError: The verdict does not hold for this request.
        """
        if offer.build not in (self._plan.build, self._plan.fallback_build):
            raise internal()
        try:
            try:
                return self._judge(offer)
            except VerdictRefusedError as error:
                if not await self._learn(error.fault):
                    raise
            return self._judge(offer)
        except VerdictRefusedError as error:
            self._stage.meters.attempt_failed(self._plan.build, f"verdict_{error.fault.value}")
            raise

    def _judge(self, offer: Offer) -> Checked:
        now, exclusive = self._clock.now(), self._plan.free
        return self._stage.verdicts.check(offer, now, own=self.own, exclusive=exclusive)

    async def _learn(self, fault: VerdictFault) -> bool:
        """Read again what could change a judgement; False where nothing could."""
        if fault is VerdictFault.UNKNOWN_KEY:
            await self._stage.refresh_keys()
            return True
        if fault not in _PERHAPS_OWN or self._plan.route is Route.PUBLIC or self._asked_again:
            return False
        # A machine that was linked a moment ago.
        self._asked_again = True
        await self.know_own(again=True)
        return True
