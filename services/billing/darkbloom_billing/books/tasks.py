"""What the books do by themselves: mature, seal, audit, deliver."""

from datetime import timedelta
from pathlib import Path

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError
from darkbloom_mesh.serve import Service

from darkbloom_billing.audit import Auditor, imbalance
from darkbloom_billing.books.books import Books
from darkbloom_billing.books.maturation import Maturation
from darkbloom_billing.books.outbox import Dispatcher, Outbox
from darkbloom_billing.books.seal import Sealer
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.meters import Meters
from darkbloom_billing.recovery.verified import watch
from darkbloom_billing.store.database import Database

_FORGET_S = 3600.0
_PAGE = 1000
_log = structlog.get_logger()


class BooksTasks:
    """Background work of the books; every replica runs all of it.

    Args:
        config: Periods, ages, directories.
        database: Where the ledger is.
        clock: Time.
        meters: Gauges.
    """

    def __init__(
        self, config: BillingConfig, database: Database, clock: Clock, meters: Meters
    ) -> None:
        self._config = config
        self._database = database
        self._clock = clock
        self._meters = meters
        self._auditor = Auditor(database)
        self._outbox = Outbox(database, clock)

    def spawn(self, service: Service, books: Books, dispatcher: Dispatcher) -> None:
        """Start everything inside a service that is about to serve."""
        config = self._config
        age = timedelta(seconds=config.maturation_s)
        maturation = Maturation(books, self._clock, age, self._meters.matured)
        directory = Path(config.seal_directory) if config.seal_directory else None
        sealer = Sealer(self._database, self._clock, directory, self._meters.sealed)
        if directory is not None:
            verified = watch(directory, self._clock, self._meters.verified)
            service.spawn(verified, name="verified-backups")
        service.spawn(maturation.run(config.maturation_period_s), name="maturation")
        service.spawn(sealer.run(config.audit_period_s), name="sealer")
        service.spawn(dispatcher.run(config.poll_period_s), name="outbox")
        service.spawn(self._watch(config.audit_period_s), name="auditor")
        service.spawn(self._forget(), name="forgetting")

    async def _forget(self) -> None:
        """Forget finished work that nobody asks for any more, for ever."""
        kept = timedelta(days=self._config.finished_days)
        while True:
            try:
                while await self._outbox.forget(before=self._clock.now() - kept, limit=_PAGE):
                    continue
            except MeshError as error:
                _log.warning("finished_work_kept", reason=error.reason_name)
            await self._clock.sleep(_FORGET_S)

    async def _watch(self, period_s: float) -> None:
        """Audit what moved, for ever."""
        while True:
            try:
                await self._look()
            except MeshError as error:
                _log.warning("books_not_audited", reason=error.reason_name)
            await self._clock.sleep(period_s)

    async def _look(self) -> None:
        self._meters.imbalance(await imbalance(self._database))
        self._meters.owed((await self._outbox.waiting())[1])
        violations = await self._auditor.round(now=self._clock.now())
        self._meters.violations(len(violations))
        for check in sorted({violation.check for violation in violations}):
            _log.error("books_violated", check=check)
