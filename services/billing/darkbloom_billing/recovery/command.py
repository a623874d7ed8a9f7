"""`python -m darkbloom_billing backup-check`: prove a backup, and say so in one line of JSON."""

import asyncio
import secrets
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.config import BillingConfig
from darkbloom_billing.recovery.checking import check
from darkbloom_billing.recovery.scratch import Clusters, api, at_host
from darkbloom_billing.recovery.verified import note
from darkbloom_billing.store.database import Database

_CONNECTIONS = 2
_CLOSE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """How Kubernetes makes the restored cluster."""

    address: str
    """Of the API."""
    credentials: Path
    """Directory with `token` and `ca.crt`."""
    namespace: str
    live: str
    """Cluster whose newest backup is restored."""
    scratch: str
    """Name of the cluster that is made, and deleted."""
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupCheck:
    """What to hold a backup against.

    Args:
        config: Billing's own; its login is the one of the restored cluster.
        clock: Time.
        heads: Copies of the sealed history.
        record: Where a success is written down; None: nowhere.
        max_behind: By how much the archive may lag.
        restored: Lets Kubernetes restore it; None: the configuration names the restored database.
    """

    config: BillingConfig
    clock: Clock
    heads: Path
    record: Path | None
    max_behind: timedelta
    restored: Restored | None = None

    async def run(self, at: datetime | None = None) -> dict[str, Any]:
        """Check; whatever stands in the way is an unsound result with a reason, never a traceback.

        Args:
            at: When the restore began; None: it begins now.
        """
        at, left = at or self.clock.now(), list[str]()
        told = await self._told(at, left)
        return {**told, "not_deleted": left[0]} if left else told

    async def _told(self, at: datetime, left: list[str]) -> dict[str, Any]:
        try:
            async with AsyncExitStack() as stack:
                config = await self._config(stack, left)
                database = await Database.open(
                    config.database_url,
                    role=config.database_role,
                    connections=_CONNECTIONS,
                    timeout_s=config.database_timeout_s,
                    clock=self.clock,
                    uniform=secrets.SystemRandom().random,
                )
                stack.push_async_callback(_close, database)
                found = await check(
                    config,
                    database,
                    self.clock,
                    heads=self.heads,
                    at=at,
                    max_behind=self.max_behind,
                )
            told = found.body()
            if told["sound"] and self.record is not None:
                note(self.record, at, told)
        except MeshError as error:
            return _failed(at, error.message)
        except (OSError, ValueError, asyncpg.PostgresError) as error:
            # Their words may name hosts and rows.
            return _failed(at, type(error).__name__)
        return told

    async def _config(self, stack: AsyncExitStack, left: list[str]) -> BillingConfig:
        restored = self.restored
        if restored is None:
            return self.config
        http = await stack.enter_async_context(api(restored.address, restored.credentials))
        clusters = Clusters(http, restored.namespace, self.clock)
        host = await stack.enter_async_context(
            clusters.restored(
                restored.live, restored.scratch, wait_s=restored.wait_s, left=left.append
            )
        )
        return replace(self.config, database_url=at_host(self.config.database_url, host))


async def _close(database: Database) -> None:
    # A restored server that hangs must not keep its own deletion waiting.
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await database.close()


def _failed(at: datetime, why: str) -> dict[str, Any]:
    return {"sound": False, "problems": ["not_checked"], "at": at.isoformat(), "failed": why}
