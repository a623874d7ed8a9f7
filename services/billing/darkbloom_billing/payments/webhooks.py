"""Webhooks: checked, written down, answered; then they act from the table, again until done."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import InvalidArgumentError, MeshError

from darkbloom_billing.payments import events
from darkbloom_billing.payments.errors import NotConfiguredError
from darkbloom_billing.payments.meters import PaymentMeters
from darkbloom_billing.payments.model import EventSource, StripeEvent, WaitingEvent
from darkbloom_billing.payments.signature import verify
from darkbloom_billing.payments.store.events import CLAIM, PostgresEvents
from darkbloom_billing.payments.store.payouts import LostRaceError

Handler = Callable[[StripeEvent], Awaitable[None]]

STUCK_AFTER = timedelta(days=3)
_FIRST_WAIT = timedelta(seconds=1)
_LONGEST_WAIT = timedelta(hours=1)
_BATCH = 20
_log = structlog.get_logger()


class Inbox:
    """Takes what Stripe delivers.

    Args:
        store: Where events wait.
        secrets: Those that are valid now, by endpoint.
        clock: Time.
        meters: Counters.
    """

    def __init__(
        self,
        store: PostgresEvents,
        secrets: Mapping[EventSource, tuple[Secret, ...]],
        clock: Clock,
        meters: PaymentMeters,
    ) -> None:
        self._store = store
        self._secrets = secrets
        self._clock = clock
        self._meters = meters
        self.arrived = asyncio.Event()
        """Set when something new waits."""

    async def take(self, source: EventSource, payload: bytes, signature: str) -> bool:
        """Write an event down; False: it is known, or of no interest.

        Raises:
            NotConfiguredError: This endpoint has no secret, so nothing can be believed.
            InvalidArgumentError: Too long, or the signature does not fit.
            StoreUnavailableError: Stripe should deliver it again.
        """
        secrets = self._secrets.get(source, ())
        if not secrets:
            raise NotConfiguredError("no secret for this webhook")
        if len(payload) > events.MAX_PAYLOAD:
            raise InvalidArgumentError("is longer than 1 MiB", "payload")
        now = self._clock.now()
        if not verify(payload, signature, secrets, now):
            self._meters.event("forged")
            raise InvalidArgumentError("does not fit", "signature")
        event = events.read(payload)
        if event is None or event.kind not in events.ACTING[source]:
            self._meters.event("ignored")
            return False
        added = await self._store.add(event, source, now=now)
        if added is None:
            # Signed by Stripe, and yet another event of the same id: the first one counts.
            _log.error("stripe_event_differs", stripe_event=event.event_id)
            self._meters.event("conflict")
            return False
        self._meters.event("stored" if added else "repeated")
        if added:
            self.arrived.set()
        return added


class Dispatcher:
    """Lets events act, oldest first, and again later where they could not.

    Args:
        store: Where events wait.
        handlers: By kind of event; each may be repeated.
        clock: Time.
        meters: Counters.
    """

    def __init__(
        self,
        store: PostgresEvents,
        handlers: Mapping[str, Handler],
        clock: Clock,
        meters: PaymentMeters,
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._clock = clock
        self._meters = meters

    async def run(self, arrived: asyncio.Event, period_s: float) -> None:
        """Act for ever: at once on what arrives here, by period on what others left."""
        while True:
            arrived.clear()
            try:
                while await self.sweep():
                    continue
            except MeshError as error:
                _log.warning("events_postponed", reason=error.reason_name)
            try:
                async with asyncio.timeout(period_s):
                    await arrived.wait()
            except TimeoutError:
                continue

    async def sweep(self) -> int:
        """Act on what is due, and return how many events that were."""
        now = self._clock.now()
        waiting = await self._store.claim(now=now, until=now + CLAIM, limit=_BATCH)
        for each in waiting:
            await self._act(each)
        return len(waiting)

    async def _act(self, waiting: WaitingEvent) -> None:
        event = waiting.event
        handler = self._handlers.get(event.kind)
        if handler is None:
            # Taken while its key was configured; it acts once the key is back.
            await self._postpone(waiting, "not_configured", self._clock.now())
            return
        try:
            await handler(event)
        except (MeshError, LostRaceError) as error:
            problem = error.reason_name if isinstance(error, MeshError) else "lost_race"
            await self._postpone(waiting, problem, self._clock.now())
            return
        except Exception as error:  # noqa: BLE001 - one event that we cannot read must not stop the others
            _log.error("stripe_event_failed", stripe_event=event.event_id, exc_info=error)
            await self._postpone(waiting, type(error).__name__, self._clock.now())
            return
        await self._store.done(event.event_id)
        self._meters.event("done")

    async def _postpone(self, waiting: WaitingEvent, problem: str, now: datetime) -> None:
        event = waiting.event
        if now - waiting.received_at >= STUCK_AFTER:
            _log.error(
                "stripe_event_stuck", stripe_event=event.event_id, kind=event.kind, reason=problem
            )
            self._meters.event("stuck")
            await self._store.stuck(event.event_id, problem)
            return
        _log.warning(
            "stripe_event_waits", stripe_event=event.event_id, kind=event.kind, reason=problem
        )
        self._meters.event("again")
        wait = min(_FIRST_WAIT * (1 << min(waiting.tries - 1, 12)), _LONGEST_WAIT)
        await self._store.again(event.event_id, problem, at=now + wait)
