"""Builds sign-in inside a billing that is about to serve."""

import secrets

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.serve import Service

from darkbloom_billing.accounts import Accounts
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.identity.devices import Devices
from darkbloom_billing.identity.issuers import IssuerKeys
from darkbloom_billing.identity.log_reports import LogReports
from darkbloom_billing.identity.logins import Logins
from darkbloom_billing.identity.machines import Machines
from darkbloom_billing.identity.owner_keys import OwnerKeys
from darkbloom_billing.identity.server import IdentityServer
from darkbloom_billing.identity.store_devices import PostgresDevices
from darkbloom_billing.identity.store_keys import PostgresOwnerKeys
from darkbloom_billing.identity.store_tokens import PostgresTokens
from darkbloom_billing.identity.store_users import PostgresUsers
from darkbloom_billing.identity.web import HttpKeySets
from darkbloom_billing.store.database import Database


def wire_identity(
    config: BillingConfig, service: Service, database: Database, accounts: Accounts, clock: Clock
) -> IdentityServer:
    """Return the servicer; its background work and connections belong to the service."""
    entropy = secrets.token_bytes
    key_sets = HttpKeySets()
    service.on_close(key_sets.close)
    devices = Devices(PostgresDevices(database), clock, entropy)
    service.spawn(devices.run_purge(), name="device_codes")
    return IdentityServer(
        Logins(
            IssuerKeys(config.login_issuers(), key_sets, clock),
            PostgresUsers(database),
            clock,
            entropy,
            admin_emails=config.admin_emails,
        ),
        OwnerKeys(PostgresOwnerKeys(database), clock),
        devices,
        Machines(PostgresTokens(database), accounts, clock, entropy),
        LogReports(database, clock, entropy),
    )
