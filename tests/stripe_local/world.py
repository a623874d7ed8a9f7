"""What the local Stripe remembers: objects, balances, events, answers; a file keeps it."""

import copy
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkbloom_mesh.clock import Clock

from tests.stripe_local.problems import unknown
from tests.stripe_local.shapes import blank

PLATFORM = ""
"""The account of the API key itself."""
API_VERSION = "2026-10-28.endive"


@dataclass
class World:
    """All state; every method is synchronous, so each call is atomic."""

    clock: Clock
    seed: int = 1
    path: Path | None = None
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    """Connected account that an object lives under; absent: the platform."""
    counter: int = 0
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """First answer by idempotency key."""
    endpoints: list[dict[str, Any]] = field(default_factory=list)
    """Webhook endpoints: url, secret, connect, events."""
    queue: list[dict[str, Any]] = field(default_factory=list)
    """Deliveries that wait: endpoint, event id, tries."""
    faults: list[dict[str, Any]] = field(default_factory=list)
    automatic: bool = True
    """Deliver events as they happen; otherwise they wait for the control API."""
    calls: list[str] = field(default_factory=list)
    """Method and path of the latest calls."""
    pages: str = "https://checkout.stripe.invalid"
    """Base URL of the pages of Checkout; nobody can open those of this name."""

    _KEPT = ("objects", "owners", "counter", "answers", "endpoints", "queue", "automatic")

    def id(self, prefix: str) -> str:
        """Return the next id; the same seed makes the same ids."""
        self.counter += 1
        digest = hashlib.sha256(f"{self.seed}:{self.counter}".encode()).hexdigest()
        return f"{prefix}_{digest[:24]}"

    def now(self) -> int:
        """Return unix seconds."""
        return int(self.clock.now().timestamp())

    def new(self, kind: str, prefix: str, *, account: str = PLATFORM, **fields: Any) -> Any:
        """Make an object with an id, keep it and return it."""
        made = blank(kind, id=self.id(prefix), **fields)
        if "created" in made:
            made["created"] = self.now()
        self.keep(made, account)
        return made

    def keep(self, made: dict[str, Any], account: str = PLATFORM) -> None:
        """Keep an object under an account."""
        self.objects[made["id"]] = made
        if account:
            self.owners[made["id"]] = account

    def get(self, kind: str, name: str, account: str = PLATFORM) -> Any:
        """Return an object.

        Raises:
            ProblemError: 404.
        """
        found = self.objects.get(name)
        if found is None or found["object"] != kind or self.owners.get(name, "") != account:
            raise unknown(kind, name)
        return found

    def all(self, kind: str, account: str = PLATFORM) -> list[Any]:
        """Return every object of a kind, newest first."""
        mine = (o for o in self.objects.values() if self.owners.get(o["id"], "") == account)
        return [o for o in mine if o["object"] == kind][::-1]

    def book(
        self,
        kind: str,
        amount: int,
        source: str | None,
        *,
        fee: int = 0,
        account: str = PLATFORM,
        category: str | None = None,
    ) -> Any:
        """Move the balance of an account by one balance transaction."""
        details = [{"amount": fee, "currency": "usd", "type": "stripe_fee"}] if fee else []
        return self.new(
            "balance_transaction",
            "txn",
            account=account,
            amount=amount,
            available_on=self.now(),
            currency="usd",
            fee=fee,
            fee_details=details,
            net=amount - fee,
            reporting_category=category or kind,
            source=source,
            status="available",
            type=kind,
            balance_type="payments",
        )

    def balance(self, account: str = PLATFORM) -> int:
        """Return cents that an account has."""
        return sum(row["net"] for row in self.all("balance_transaction", account))

    def emit(self, kind: str, subject: dict[str, Any], account: str = PLATFORM) -> Any:
        """Make an event about an object as it is now, and queue it where it belongs."""
        event = self.new(
            "event",
            "evt",
            api_version=API_VERSION,
            data={"object": copy.deepcopy(subject)},
            pending_webhooks=0,
            request={"id": None, "idempotency_key": None},
            type=kind,
        )
        if account:
            event["account"] = account
        for number, endpoint in enumerate(self.endpoints):
            if bool(account) == endpoint["connect"] and _wanted(endpoint["events"], kind):
                self.queue.append({"endpoint": number, "event": event["id"], "tries": 0})
        return event

    def save(self) -> None:
        """Write everything to the file, if there is one."""
        if self.path is not None:
            kept = {name: getattr(self, name) for name in self._KEPT}
            draft = self.path.with_suffix(".new")
            draft.write_text(json.dumps(kept))
            draft.replace(self.path)

    def load(self) -> None:
        """Read the file, if it is there."""
        if self.path is not None and self.path.exists():
            for name, value in json.loads(self.path.read_text()).items():
                setattr(self, name, value)


def page(items: Iterable[Any], url: str, limit: int = 10) -> dict[str, Any]:
    """Return a list object."""
    rows = list(items)
    return {"object": "list", "data": rows[:limit], "has_more": len(rows) > limit, "url": url}


def _wanted(patterns: list[str], kind: str) -> bool:
    return not patterns or any(
        kind == each or (each.endswith("*") and kind.startswith(each[:-1])) for each in patterns
    )
