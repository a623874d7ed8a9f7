"""Changes of offers, and the figures of machines that decide them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, final

from darkbloom_mesh.postgres import Connection

from darkbloom_attestation.figures import RESTARTS, SETTLED, Compared, Figures
from darkbloom_attestation.model import OfferAction, OfferChange

_SHOWN: Final = 100
_HOUR: Final = timedelta(hours=1)

# Sessions of the window say who does badly; verdicts in force add those who have been quiet.
_FIGURES: Final = """
WITH recent AS (
  SELECT r.identity_key, r.version = $2 AS ours, r.version, r.accepted, r.create_time,
    s.untrusted <> '' AS untrusted,
    EXISTS (SELECT FROM attestation.verdicts v WHERE v.provider_id = r.provider_id) AS routed
  FROM attestation.registrations r JOIN attestation.sessions s USING (provider_id)
  WHERE r.create_time >= $6 AND octet_length(r.identity_key) = 65
    AND (r.version = $2 OR r.version = ANY($4))
), newest AS (
  SELECT DISTINCT ON (identity_key) identity_key, version FROM recent
  ORDER BY identity_key, create_time DESC
), heard AS (
  SELECT identity_key, ours,
    bool_or(NOT accepted) AS refused,
    bool_or(untrusted) AS untrusted,
    bool_or(accepted AND NOT untrusted AND NOT routed AND create_time < $8) AS unrouted,
    count(*) FILTER (WHERE create_time >= $9) >= $10 AS restarting,
    bool_or(ours AND newest.version = ANY($5)) AS returned
  FROM recent JOIN newest USING (identity_key) GROUP BY identity_key, ours
), quiet AS (
  SELECT DISTINCT r.identity_key, v.code_release = $1 AS ours
  FROM attestation.verdicts v JOIN attestation.registrations r USING (provider_id)
  WHERE v.expire_time > $11 AND (v.code_release = $1 OR v.code_release = ANY($3))
), machines AS (
  SELECT * FROM heard
  UNION ALL
  SELECT identity_key, ours, false, false, false, false, false FROM quiet
  WHERE NOT EXISTS (
    SELECT FROM heard WHERE heard.identity_key = quiet.identity_key AND heard.ours = quiet.ours)
)
SELECT ours, count(*) AS machines,
  count(*) FILTER (WHERE refused OR untrusted OR unrouted OR restarting OR returned) AS bad,
  count(*) FILTER (WHERE refused) AS refused,
  count(*) FILTER (WHERE untrusted) AS untrusted,
  count(*) FILTER (WHERE unrouted) AS unrouted,
  count(*) FILTER (WHERE restarting) AS restarting,
  count(*) FILTER (WHERE returned) AS returned
FROM machines
WHERE EXISTS (
  SELECT FROM attestation.registrations b
  WHERE b.identity_key = machines.identity_key AND b.create_time < $7)
GROUP BY ours
"""


@final
class OfferTable:
    """What became of offers; rows only come."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, change: OfferChange) -> None:
        """Write a change; it never changes."""
        await self._connection.execute(
            "INSERT INTO attestation.offer_changes (code_release, change_time, actor, action,"
            " percent, reason) VALUES ($1, $2, $3, $4, $5, $6)",
            change.code_release,
            change.time,
            change.actor,
            change.action.value,
            change.percent,
            change.reason,
        )

    async def newest(self, code_release: str) -> Sequence[OfferChange]:
        """Return the newest changes of an offer, oldest first."""
        rows = await self._connection.fetch(
            "SELECT * FROM attestation.offer_changes WHERE code_release = $1"
            " ORDER BY change_id DESC LIMIT $2",
            code_release,
            _SHOWN,
        )
        return [
            OfferChange(
                code_release=row["code_release"],
                time=row["change_time"],
                actor=row["actor"],
                action=OfferAction(row["action"]),
                percent=row["percent"],
                reason=row["reason"],
            )
            for row in reversed(rows)
        ]


async def read_figures(connection: Connection, wanted: Compared) -> tuple[Figures, Figures]:
    """Return how machines of a release do, and those of the others."""
    rows = await connection.fetch(
        _FIGURES,
        wanted.code_release,
        wanted.version,
        list(wanted.others),
        list(wanted.other_versions),
        list(wanted.older_versions),
        wanted.since,
        wanted.known_before,
        wanted.now - SETTLED,
        wanted.now - _HOUR,
        RESTARTS,
        wanted.now,
    )
    found = {
        row["ours"]: Figures(**{name: row[name] for name in Figures.__dataclass_fields__})
        for row in rows
    }
    return found.get(True, Figures()), found.get(False, Figures())
