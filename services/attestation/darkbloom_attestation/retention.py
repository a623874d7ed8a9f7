"""Old evidence goes: receipts can be questioned for a while, and no table grows for ever.

A session is kept while anything of it is young. What is deleted, no live verdict can name.
"""

from datetime import timedelta

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.postgres import Database

SWEEP_INTERVAL_S = 3600.0
BATCH_ROWS = 5000
"""Most rows of one table per sweep and transaction, so that no lock is held for long."""

_log = structlog.get_logger()

# In the order of their references: what points first.
_STATEMENTS = (
    """DELETE FROM attestation.violations WHERE report_id IN (
         SELECT report_id FROM attestation.violations
         WHERE create_time < $1 LIMIT $2)""",
    """DELETE FROM attestation.revocations WHERE generation IN (
         SELECT r.generation FROM attestation.revocations r
         WHERE r.issue_time < $1 AND NOT EXISTS (
           SELECT 1 FROM attestation.violations v WHERE v.revocation_id = r.revocation_id)
         LIMIT $2)""",
    """DELETE FROM attestation.verdicts WHERE verdict_id IN (
         SELECT v.verdict_id FROM attestation.verdicts v
         WHERE v.expire_time < $1 AND NOT EXISTS (
           SELECT 1 FROM attestation.revocations r WHERE r.verdict_id = v.verdict_id)
         LIMIT $2)""",
    """DELETE FROM attestation.key_proofs WHERE evidence_id IN (
         SELECT k.evidence_id FROM attestation.key_proofs k
         WHERE k.expire_time < $1 AND NOT EXISTS (
           SELECT 1 FROM attestation.verdicts v WHERE v.key_proof_id = k.evidence_id)
         LIMIT $2)""",
    """DELETE FROM attestation.postures WHERE evidence_id IN (
         SELECT p.evidence_id FROM attestation.postures p
         WHERE p.expire_time < $1 AND NOT EXISTS (
           SELECT 1 FROM attestation.verdicts v WHERE v.posture_id = p.evidence_id)
         LIMIT $2)""",
    # A key that was long silent attests anew; its old attestation names a challenge that is over.
    """DELETE FROM attestation.app_attest_keys WHERE key_id IN (
         SELECT a.key_id FROM attestation.app_attest_keys a
         WHERE a.create_time < $1 AND a.revoke_time IS NULL AND NOT EXISTS (
           SELECT 1 FROM attestation.key_proofs k WHERE k.key_id = a.key_id)
         LIMIT $2)""",
    """DELETE FROM attestation.mdm_commands WHERE command_uuid IN (
         SELECT command_uuid FROM attestation.mdm_commands WHERE create_time < $1 LIMIT $2)""",
    """DELETE FROM attestation.challenges WHERE challenge_id IN (
         SELECT challenge_id FROM attestation.challenges
         WHERE create_time < $1 AND state <> 'pending' LIMIT $2)""",
    """DELETE FROM attestation.sessions WHERE provider_id IN (
         SELECT s.provider_id FROM attestation.sessions s
         JOIN attestation.registrations g USING (provider_id)
         WHERE g.create_time < $1
           AND NOT EXISTS (SELECT 1 FROM attestation.challenges c
                           WHERE c.provider_id = s.provider_id)
           AND NOT EXISTS (SELECT 1 FROM attestation.verdicts v
                           WHERE v.provider_id = s.provider_id)
           AND NOT EXISTS (SELECT 1 FROM attestation.key_proofs k
                           WHERE k.provider_id = s.provider_id)
           AND NOT EXISTS (SELECT 1 FROM attestation.mdm_commands m
                           WHERE m.provider_id = s.provider_id)
           AND NOT EXISTS (SELECT 1 FROM attestation.violations x
                           WHERE x.provider_id = s.provider_id)
         LIMIT $2)""",
    """DELETE FROM attestation.registrations WHERE registration_id IN (
         SELECT g.registration_id FROM attestation.registrations g
         WHERE g.create_time < $1 AND NOT EXISTS (
           SELECT 1 FROM attestation.sessions s WHERE s.provider_id = g.provider_id)
         LIMIT $2)""",
)


class Retention:
    """Deletes evidence older than `keep_s`, a bounded batch at a time."""

    def __init__(self, database: Database, clock: Clock, *, keep_s: float) -> None:
        self._database = database
        self._clock = clock
        self._keep_s = keep_s

    async def run(self) -> None:
        """Sweep every hour; an unreachable store is tried again an hour later."""
        while True:
            await self._clock.sleep(SWEEP_INTERVAL_S)
            try:
                while await self.sweep():
                    pass
            except StoreUnavailableError:
                _log.warning("retention_postponed")

    async def sweep(self) -> bool:
        """Delete one batch of each table; returns whether a full batch says that more is left."""
        cutoff = self._clock.now() - timedelta(seconds=self._keep_s)
        more = False
        for statement in _STATEMENTS:
            more = await self._database.sweep(statement, cutoff, BATCH_ROWS) >= BATCH_ROWS or more
        return more
