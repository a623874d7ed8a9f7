"""What the environment says: `DARKBLOOM_BILLING_*`."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from darkbloom_mesh.config import RoomConfig, Secret, Setting

from darkbloom_billing.identity.model import Issuer
from darkbloom_billing.identity.settings import read_issuers

_ED25519_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class BillingConfig(RoomConfig):
    """Configuration of billing."""

    database_url: Annotated[
        Secret,
        Setting("PostgreSQL; schemas `ledger` and `billing` are ours", env="DATABASE_URL"),
    ]
    database_role: Annotated[
        str, Setting("role that the service takes on; it cannot change the ledger's history")
    ] = "darkbloom_billing"
    database_connections: Annotated[
        int, Setting("largest number of connections", minimum=3, maximum=64)
    ] = 6
    database_timeout_s: Annotated[
        float, Setting("longest wait for one statement", minimum=0.1, maximum=30)
    ] = 5.0
    listen: Annotated[str, Setting("host:port of the internal gRPC listener; port 0 picks one")] = (
        "127.0.0.1:7102"
    )
    attestation_target: Annotated[str, Setting("attestation")] = "127.0.0.1:7103"
    verdict_keys: Annotated[
        tuple[str, ...],
        Setting("pinned Ed25519 verdict keys, base64, beside those that attestation lists"),
    ] = ()
    login_issuers_file: Annotated[
        Path | None,
        Setting(
            "JSON list of issuers whose logins count (docs/sign-in.md); unset: nobody signs in"
        ),
    ] = None
    admin_emails: Annotated[
        tuple[str, ...], Setting("e-mails of administrators, where their issuer vouches for them")
    ] = ()
    key_refresh_s: Annotated[
        float, Setting("how often attestation's keys are read again", minimum=1)
    ] = 60.0
    hold_lease_s: Annotated[
        float, Setting("lease of a new hold, and the longest renewal", minimum=1, maximum=900)
    ] = 900.0
    sweep_period_s: Annotated[
        float, Setting("how often expired holds are released", minimum=0.05)
    ] = 15.0
    poll_period_s: Annotated[
        float, Setting("how often keys and prices are read without a notification", minimum=0.05)
    ] = 5.0
    heartbeat_s: Annotated[
        float, Setting("silence on a key watch before a heartbeat", minimum=0.05)
    ] = 10.0
    audit_period_s: Annotated[
        float, Setting("how often what moved is audited, and history is sealed", minimum=1)
    ] = 300.0
    rollup_period_s: Annotated[
        float,
        Setting("how often settled work is counted into sums and figures", minimum=0.05),
    ] = 5.0
    seal_directory: Annotated[
        str, Setting("directory for copies of each sealed head, never overwritten; unset: none")
    ] = ""
    maturation_s: Annotated[
        float, Setting("age at which earnings may be spent and withdrawn", minimum=0)
    ] = 604800.0
    maturation_period_s: Annotated[
        float, Setting("how often earnings that are old enough mature", minimum=0.05)
    ] = 60.0
    receipt_due_s: Annotated[
        float, Setting("age at which a settlement without a receipt is a finding", minimum=1)
    ] = 600.0
    receipt_days: Annotated[
        int, Setting("days that whole receipts can be looked up", minimum=1)
    ] = 90
    finished_days: Annotated[
        int,
        Setting("days that finished jobs, acted events and changes of keys are kept", minimum=31),
    ] = 90
    anchor_period_s: Annotated[
        float, Setting("how often new receipts are anchored in the log", minimum=0.05)
    ] = 10.0

    referral_share_percent: Annotated[
        int, Setting("share of purchased spend that a referrer gets", minimum=0, maximum=50)
    ] = 5
    referral_month_micros: Annotated[
        int, Setting("all referral rewards of one calendar month, at most", minimum=0)
    ] = 1_000_000_000
    referral_referrer_micros: Annotated[
        int, Setting("rewards of one referrer in one calendar month, at most", minimum=0)
    ] = 100_000_000
    referral_period_s: Annotated[
        float, Setting("how often closed hours are looked for", minimum=0.05)
    ] = 300.0
    erasure_grace_s: Annotated[
        float, Setting("between the confirmation of an erasure and the erasure", minimum=0)
    ] = 604_800.0
    erasure_period_s: Annotated[
        float, Setting("how often due erasures are looked for", minimum=0.05)
    ] = 300.0

    erasure_directory: Annotated[
        str,
        Setting("directory for records of confirmed erasures, kept with the backups; unset: none"),
    ] = ""

    stripe_secret_key: Annotated[
        Secret | None, Setting("Stripe's secret key for deposits; unset switches them off")
    ] = None
    stripe_webhook_secret: Annotated[
        Secret | None, Setting("secret of the webhook for payments; unset refuses its events")
    ] = None
    stripe_legacy_webhook_secret: Annotated[
        Secret | None, Setting("a second one that is valid as well, while they are rotated")
    ] = None
    stripe_success_url: Annotated[str, Setting("where a paid Checkout session leads")] = (
        "http://localhost:8080/billing/success"
    )
    stripe_cancel_url: Annotated[str, Setting("where a left Checkout session leads")] = (
        "http://localhost:8080/billing/cancel"
    )
    stripe_fee_payer: Annotated[
        Literal["consumer", "budget"],
        Setting("who bears Stripe's fee: a line of the deposit, or the fees budget"),
    ] = "consumer"
    stripe_connect_secret_key: Annotated[
        Secret | None, Setting("Stripe's secret key for payouts; unset takes the other one")
    ] = None
    stripe_connect_webhook_secret: Annotated[
        Secret | None, Setting("secret of the webhook for transfers")
    ] = None
    stripe_connect_accounts_webhook_secret: Annotated[
        Secret | None, Setting("secret of the webhook for connected accounts")
    ] = None
    stripe_connect_country: Annotated[
        str, Setting("country of connected accounts that do not say")
    ] = "US"
    stripe_connect_return_url: Annotated[str, Setting("where finished onboarding leads")] = (
        "http://localhost:8080/billing/payouts"
    )
    stripe_connect_refresh_url: Annotated[
        str, Setting("where an onboarding link that expired leads")
    ] = "http://localhost:8080/billing/payouts/again"
    stripe_api_base: Annotated[
        str | None, Setting("a local Stripe; only in development and with a test key")
    ] = None
    stripe_timeout_s: Annotated[
        float, Setting("longest wait for one answer of Stripe", minimum=0.1, maximum=20)
    ] = 15.0
    stripe_poll_s: Annotated[
        float, Setting("how often waiting events, withdrawals and top-ups are tried", minimum=0.05)
    ] = 5.0

    def problems(self) -> Iterator[str]:
        """Refuse pins that are not keys."""
        yield from super().problems()
        yield from self._stripe_problems()
        try:
            self.pinned_verdict_keys()
        except ValueError:
            yield "DARKBLOOM_BILLING_VERDICT_KEYS: not a list of 32-byte keys in base64"
        try:
            self.login_issuers()
        except ValueError as error:
            yield f"DARKBLOOM_BILLING_LOGIN_ISSUERS_FILE: {error}"

    def login_issuers(self) -> tuple[Issuer, ...]:
        """Return the issuers whose logins count.

        Raises:
            ValueError: The file is not a list of issuers.
        """
        if self.login_issuers_file is None:
            return ()
        return read_issuers(self.login_issuers_file, development=self.environment == "development")

    def _stripe_problems(self) -> Iterator[str]:
        """Real money neither meets development nor a Stripe that is not Stripe."""
        keys = (self.stripe_secret_key, self.stripe_connect_secret_key)
        live = any(key is not None and "_live_" in key.reveal() for key in keys)
        if self.environment == "development" and live:
            yield "DARKBLOOM_BILLING_STRIPE_SECRET_KEY: a live key in development"
        if self.stripe_api_base is not None and self.environment != "development":
            yield "DARKBLOOM_BILLING_STRIPE_API_BASE: only in development"

    def pinned_verdict_keys(self) -> tuple[bytes, ...]:
        """Return the pinned public keys, 32 bytes each.

        Raises:
            ValueError: One is not 32 bytes of base64.
        """
        try:
            keys = tuple(base64.b64decode(text, validate=True) for text in self.verdict_keys)
        except binascii.Error:
            raise ValueError("pinned key is not base64") from None
        if any(len(key) != _ED25519_BYTES for key in keys):
            raise ValueError("pinned key has another size")
        return keys
