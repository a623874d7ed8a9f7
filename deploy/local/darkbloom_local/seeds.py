"""What a fresh mesh needs before it can answer: accounts, money, prices, builds, a blessed tree.

Every call is idempotent, so that seeding a mesh that has data changes nothing.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from darkbloom.attestation.v1 import attestation_pb2, attestation_service_pb2
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom.billing.v1 import account_service_pb2, identity_service_pb2, price_service_pb2
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom.billing.v1.identity_service_pb2_grpc import IdentityServiceStub
from darkbloom.billing.v1.price_service_pb2_grpc import PriceServiceStub
from darkbloom.registry.v1 import catalog_pb2, registry_service_pb2
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub

CONSUMER = "acct_dev"
PROVIDER = "acct_provider"
GRANT_MICROS = 10_000_000

_CALL_S = 10.0
_REGISTER_S = 30.0
"""A chat template is rendered meanwhile."""


@dataclass(frozen=True, kw_only=True)
class DevelopmentBuild:
    """A build that `make run` publishes, and what it costs."""

    build: catalog_pb2.Build
    """Facts for the catalog; id and capabilities at least."""
    manifest: bytes
    """Its manifest.json."""
    alias: str
    """Public name that consumers use; empty for none."""
    input_micros: int
    """Micro-USD per million prompt tokens."""
    output_micros: int
    """Micro-USD per million completion tokens."""
    template_files: Mapping[str, bytes] = field(default_factory=dict)
    """Those of its chat template, by path; the registry tries them."""


async def accounts(billing: grpc.aio.Channel, api_key: str) -> None:
    """Create the development account with its key and money, and the account that earns."""
    stub = AccountServiceStub(billing)
    for account_id, name in ((CONSUMER, "development"), (PROVIDER, "development provider")):
        await stub.CreateAccount(
            account_service_pb2.CreateAccountRequest(account_id=account_id, display_name=name),
            timeout=_CALL_S,
        )
    await stub.CreateKey(
        account_service_pb2.CreateKeyRequest(
            account_id=CONSUMER,
            key_hash=hashlib.sha256(api_key.encode()).digest(),
            label=f"{api_key[:10]}…{api_key[-4:]}",
            name="development",
        ),
        timeout=_CALL_S,
    )
    await stub.Grant(
        account_service_pb2.GrantRequest(
            request_id="grant_development",
            account_id=CONSUMER,
            amount_micros=GRANT_MICROS,
            note="development credit",
        ),
        timeout=_CALL_S,
    )


async def developer(billing: grpc.aio.Channel, login_token: str) -> str:
    """Sign the developer in and give the account money; return its id."""
    signed_in = await IdentityServiceStub(billing).VerifyLogin(
        identity_service_pb2.VerifyLoginRequest(token=login_token), timeout=_CALL_S
    )
    await AccountServiceStub(billing).Grant(
        account_service_pb2.GrantRequest(
            request_id="grant_developer",
            account_id=signed_in.login.account_id,
            amount_micros=GRANT_MICROS,
            note="development credit",
        ),
        timeout=_CALL_S,
    )
    return signed_in.login.account_id


async def prices(billing: grpc.aio.Channel, builds: Iterable[DevelopmentBuild]) -> None:
    """Set the platform price of each build; a price that is there stays."""
    stub = PriceServiceStub(billing)
    for build in builds:
        digest = hashlib.sha256(
            f"{build.build.id} {build.input_micros} {build.output_micros}".encode()
        )
        await stub.SetPrice(
            price_service_pb2.SetPriceRequest(
                request_id=f"price_{digest.hexdigest()[:32]}",
                build=build.build.id,
                input_micros=build.input_micros,
                output_micros=build.output_micros,
            ),
            timeout=_CALL_S,
        )


async def catalog(registry: grpc.aio.Channel, builds: Sequence[DevelopmentBuild]) -> None:
    """Publish the builds and their aliases."""
    stub = RegistryServiceStub(registry)
    for build in builds:
        await stub.RegisterBuild(
            registry_service_pb2.RegisterBuildRequest(
                build=build.build,
                manifest=build.manifest,
                promote=True,
                template_files=build.template_files,
            ),
            timeout=_REGISTER_S,
        )
        if build.alias:
            await stub.UpsertAlias(
                registry_service_pb2.UpsertAliasRequest(
                    alias=catalog_pb2.Alias(
                        alias_id=build.alias,
                        display_name=build.build.display_name,
                        desired_build=build.build.id,
                        active=True,
                    )
                ),
                timeout=_CALL_S,
            )


async def code_release(attestation: grpc.aio.Channel, measured: Mapping[str, Any]) -> None:
    """Bless the tree that runs here, for development only."""
    stub = AttestationServiceStub(attestation)
    await stub.RegisterCodeRelease(
        attestation_service_pb2.RegisterCodeReleaseRequest(
            release=attestation_pb2.CodeRelease(
                code_release=measured["code_release"],
                version=measured["version"],
                platform=measured["platform"],
                python_hash=measured["python_hash"],
                runtime_hash=measured["runtime_hash"],
                template_hashes=measured["template_hashes"],
                development=True,
                active=True,
            )
        ),
        timeout=_CALL_S,
    )


async def link_provider(
    billing: grpc.aio.Channel, identity_key: bytes, name: str, account_id: str = PROVIDER
) -> None:
    """Let the machine with this identity earn for an account."""
    stub = AccountServiceStub(billing)
    await stub.LinkProvider(
        account_service_pb2.LinkProviderRequest(
            identity_key=identity_key, account_id=account_id, name=name
        ),
        timeout=_CALL_S,
    )
