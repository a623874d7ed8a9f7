"""Billing's identity service behind the gateway's port."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import grpc
from darkbloom.billing.v1 import identity_pb2
from darkbloom.billing.v1 import identity_service_pb2 as pb
from darkbloom.billing.v1.account_pb2 import ApiKey
from darkbloom.billing.v1.account_service_pb2 import CreateKeyRequest
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom.billing.v1.identity_pb2 import Profile
from darkbloom.billing.v1.identity_service_pb2_grpc import IdentityServiceStub
from darkbloom_mesh.errors import MeshError
from google.protobuf.field_mask_pb2 import FieldMask

from darkbloom_gateway import convert
from darkbloom_gateway.clients import answer, refusal_of
from darkbloom_gateway.model import Caller, ProviderToken, Refusal
from darkbloom_gateway.ports import Login

_PART_BYTES = 1024 * 1024
_MAX_PARTS = 10


class IdentityClient:
    """Sign-in, keys, device codes and provider tokens over one channel."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub: IdentityServiceStub = IdentityServiceStub(channel)
        self._accounts: AccountServiceStub = AccountServiceStub(channel)
        self._timeout_s = timeout_s

    async def verify_login(self, token: str) -> tuple[Login | Refusal, int | None]:
        """See `ports.Identity`."""
        request = pb.VerifyLoginRequest(token=token)
        try:
            response = await answer(self._stub.VerifyLogin(request, timeout=self._timeout_s))
        except MeshError as error:
            return refusal_of(error), None
        login = response.login
        caller = Caller(
            account_id=login.account_id,
            user_id=login.user_id,
            email=login.email,
            role=login.account_role,
            is_admin=login.admin,
        )
        return Login(caller, convert.instant(login.expire_time)), response.generation

    async def profile(self, user_id: str) -> Profile:
        """Return a user."""
        request = pb.GetProfileRequest(user_id=user_id)
        return (await answer(self._stub.GetProfile(request, timeout=self._timeout_s))).profile

    async def close_account(self, account_id: str) -> None:
        """Mark an account for deletion."""
        request = pb.CloseAccountRequest(account_id=account_id)
        await answer(self._stub.CloseAccount(request, timeout=self._timeout_s))

    async def keys(self, account_id: str) -> Sequence[ApiKey]:
        """Return the keys of an account."""
        request = pb.ListKeysRequest(account_id=account_id)
        return (await answer(self._stub.ListKeys(request, timeout=self._timeout_s))).keys

    async def key(self, account_id: str, key_id: str) -> ApiKey:
        """Return one key."""
        request = pb.GetKeyRequest(account_id=account_id, key_id=key_id)
        return (await answer(self._stub.GetKey(request, timeout=self._timeout_s))).key

    async def create_key(self, key: ApiKey, key_hash: bytes) -> ApiKey:
        """Create a key with the settings of `key` for a secret of this hash."""
        request = CreateKeyRequest(
            account_id=key.account_id,
            key_hash=key_hash,
            label=key.label,
            name=key.name,
            allowed_models=key.allowed_models,
            limit_micros=key.limit_micros if key.HasField("limit_micros") else None,
            limit_reset=key.limit_reset,
            rpm_limit=key.rpm_limit if key.HasField("rpm_limit") else None,
            input_tpm_limit=key.input_tpm_limit if key.HasField("input_tpm_limit") else None,
            output_tpm_limit=key.output_tpm_limit if key.HasField("output_tpm_limit") else None,
            self_route_only=key.self_route_only,
            expire_time=key.expire_time if key.HasField("expire_time") else None,
        )
        made = (await answer(self._accounts.CreateKey(request, timeout=self._timeout_s))).key
        return await self.key(made.account_id, made.key_id)

    async def update_key(
        self, account_id: str, key_id: str, key: ApiKey, fields: Sequence[str]
    ) -> ApiKey:
        """Set the named fields to what `key` has; what it does not have is cleared."""
        request = pb.UpdateKeyRequest(
            account_id=account_id, key_id=key_id, update_mask=FieldMask(paths=fields), key=key
        )
        return (await answer(self._stub.UpdateKey(request, timeout=self._timeout_s))).key

    async def delete_key(
        self, account_id: str, *, key_id: str | None = None, key_hash: bytes | None = None
    ) -> None:
        """Revoke a key, named by id or by hash."""
        request = pb.DeleteKeyRequest(account_id=account_id)
        if key_id is not None:
            request.key_id = key_id
        if key_hash is not None:
            request.key_hash = key_hash
        await answer(self._stub.DeleteKey(request, timeout=self._timeout_s))

    async def rotate_key(self, account_id: str, key_id: str, key_hash: bytes, label: str) -> ApiKey:
        """Replace a key's secret."""
        request = pb.RotateKeyRequest(
            account_id=account_id, key_id=key_id, key_hash=key_hash, label=label
        )
        return (await answer(self._stub.RotateKey(request, timeout=self._timeout_s))).key

    async def record_key_uses(self, uses: Mapping[str, datetime]) -> None:
        """Hand in when keys were last used."""
        request = pb.RecordKeyUsesRequest(
            uses=[
                pb.KeyUse(key_id=key_id, use_time=convert.timestamp(at))
                for key_id, at in uses.items()
            ]
        )
        await answer(self._stub.RecordKeyUses(request, timeout=self._timeout_s))

    async def create_device_code(
        self, machine_name: str, source: bytes
    ) -> pb.CreateDeviceCodeResponse:
        """Begin a device login."""
        request = pb.CreateDeviceCodeRequest(machine_name=machine_name, source=source)
        return await answer(self._stub.CreateDeviceCode(request, timeout=self._timeout_s))

    async def poll_device_code(self, device_code: str) -> pb.PollDeviceCodeResponse:
        """Ask for the token of a code."""
        request = pb.PollDeviceCodeRequest(device_code=device_code)
        return await answer(self._stub.PollDeviceCode(request, timeout=self._timeout_s))

    async def device_code(self, user_code: str, account_id: str) -> pb.GetDeviceCodeResponse:
        """Return what a typed code would sign in."""
        request = pb.GetDeviceCodeRequest(user_code=user_code, account_id=account_id)
        return await answer(self._stub.GetDeviceCode(request, timeout=self._timeout_s))

    async def decide_device_code(
        self, user_code: str, account_id: str, *, approve: bool
    ) -> pb.DecideDeviceCodeResponse:
        """Approve or deny a code."""
        request = pb.DecideDeviceCodeRequest(
            user_code=user_code, account_id=account_id, approve=approve
        )
        return await answer(self._stub.DecideDeviceCode(request, timeout=self._timeout_s))

    async def provider_token(self, token_hash: bytes) -> ProviderToken | Refusal:
        """Return the token behind a secret, or why it does not count."""
        request = pb.ResolveProviderTokenRequest(token_hash=token_hash)
        try:
            call = self._stub.ResolveProviderToken(request, timeout=self._timeout_s)
            return _token((await answer(call)).token)
        except MeshError as error:
            return refusal_of(error)

    async def provider_tokens(self, account_id: str) -> Sequence[ProviderToken]:
        """Return the tokens in force of an account."""
        request = pb.ListProviderTokensRequest(account_id=account_id)
        listed = await answer(self._stub.ListProviderTokens(request, timeout=self._timeout_s))
        return [_token(token) for token in listed.tokens]

    async def revoke_provider_token(self, account_id: str, token_id: str) -> None:
        """Revoke a provider token."""
        request = pb.RevokeProviderTokenRequest(account_id=account_id, token_id=token_id)
        await answer(self._stub.RevokeProviderToken(request, timeout=self._timeout_s))

    async def link_challenge(
        self, account_id: str, identity_key: bytes
    ) -> pb.CreateLinkChallengeResponse:
        """Return a nonce for a machine to sign."""
        request = pb.CreateLinkChallengeRequest(account_id=account_id, identity_key=identity_key)
        return await answer(self._stub.CreateLinkChallenge(request, timeout=self._timeout_s))

    async def link_machine(
        self, account_id: str, identity_key: bytes, nonce: bytes, signature: bytes, name: str
    ) -> None:
        """Link a machine that proves its key."""
        request = pb.LinkMachineRequest(
            account_id=account_id,
            identity_key=identity_key,
            nonce=nonce,
            signature=signature,
            machine_name=name,
        )
        await answer(self._stub.LinkMachine(request, timeout=self._timeout_s))

    async def unlink_machine(self, account_id: str, identity_key: bytes) -> None:
        """Take a machine away from its account."""
        request = pb.UnlinkMachineRequest(account_id=account_id, identity_key=identity_key)
        await answer(self._stub.UnlinkMachine(request, timeout=self._timeout_s))

    async def add_log_report(
        self, account_id: str, token_id: str, content: bytes
    ) -> tuple[str, datetime]:
        """Hand a report of logs in; return its id and until when it is kept."""
        opening = pb.OpenLogReportRequest(
            account_id=account_id, token_id=token_id, size=len(content)
        )
        opened = await answer(self._stub.OpenLogReport(opening, timeout=self._timeout_s))
        for number, at in enumerate(range(0, len(content), _PART_BYTES)):
            part = pb.AddLogReportPartRequest(
                account_id=account_id,
                report_id=opened.report_id,
                number=number,
                content=content[at : at + _PART_BYTES],
            )
            await answer(self._stub.AddLogReportPart(part, timeout=self._timeout_s))
        return opened.report_id, convert.instant(opened.expire_time)

    async def log_report(self, report_id: str) -> bytes:
        """Return a report of logs."""
        found = bytearray()
        for number in range(_MAX_PARTS):
            request = pb.ReadLogReportPartRequest(report_id=report_id, number=number)
            call = self._stub.ReadLogReportPart(request, timeout=self._timeout_s)
            part = (await answer(call)).content
            if not part:
                break
            found += part
        return bytes(found)


def _token(token: identity_pb2.ProviderToken) -> ProviderToken:
    return ProviderToken(
        token_id=token.token_id,
        account_id=token.account_id,
        label=token.label,
        machine_name=token.machine_name,
        created_at=convert.instant(token.create_time),
    )
