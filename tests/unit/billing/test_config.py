"""The environment of billing."""

import base64

import pytest
from darkbloom_billing.config import BillingConfig
from darkbloom_mesh.config import ConfigError, load

BASE = {"DARKBLOOM_ENV": "development", "DATABASE_URL": "postgresql://user:hidden@host/db"}


def test_pinned_keys_are_read_and_checked() -> None:
    pin = base64.b64encode(b"k" * 32).decode()
    config = load(BillingConfig, "billing", {**BASE, "DARKBLOOM_BILLING_VERDICT_KEYS": pin})
    assert config.pinned_verdict_keys() == (b"k" * 32,)
    for bad in ("x", base64.b64encode(b"short").decode()):
        with pytest.raises(ConfigError) as caught:
            load(BillingConfig, "billing", {**BASE, "DARKBLOOM_BILLING_VERDICT_KEYS": bad})
        assert "DARKBLOOM_BILLING_VERDICT_KEYS" in str(caught.value)


def test_production_needs_a_mesh_token_and_nothing_shows_the_database_password() -> None:
    with pytest.raises(ConfigError):
        load(BillingConfig, "billing", {"DATABASE_URL": BASE["DATABASE_URL"]})
    assert "hidden" not in repr(load(BillingConfig, "billing", BASE))
