"""Identity on the wire: translate, delegate, translate back.

Errors are those of the domain. Whoever is named by `account_id` was authenticated by the gateway.
"""

from darkbloom.billing.v1 import identity_service_pb2 as pb
from darkbloom.billing.v1.identity_service_pb2_grpc import IdentityServiceServicer
from darkbloom_mesh.interceptors import Context
from google.protobuf.duration_pb2 import Duration

from darkbloom_billing import convert as common
from darkbloom_billing.identity import convert
from darkbloom_billing.identity.devices import INTERVAL_S, LIFE_S, Devices
from darkbloom_billing.identity.log_reports import LogReports
from darkbloom_billing.identity.logins import Logins
from darkbloom_billing.identity.machines import CHALLENGE_S, Machines
from darkbloom_billing.identity.owner_keys import OwnerKeys


class IdentityServer(IdentityServiceServicer):
    """Sign-in, keys, device codes, provider tokens, links."""

    def __init__(
        self,
        logins: Logins,
        keys: OwnerKeys,
        devices: Devices,
        machines: Machines,
        reports: LogReports,
    ) -> None:
        self._reports = reports
        self._logins = logins
        self._keys = keys
        self._devices = devices
        self._machines = machines

    async def VerifyLogin(
        self, request: pb.VerifyLoginRequest, context: Context
    ) -> pb.VerifyLoginResponse:
        """Return the user of a login token."""
        signed_in = await self._logins.verify(convert.login_token(request.token))
        return pb.VerifyLoginResponse(
            login=convert.login(signed_in), generation=signed_in.generation
        )

    async def GetProfile(
        self, request: pb.GetProfileRequest, context: Context
    ) -> pb.GetProfileResponse:
        """Return a user."""
        user = await self._logins.profile(common.token(request.user_id, "user_id"))
        return pb.GetProfileResponse(profile=convert.profile(user))

    async def CloseAccount(
        self, request: pb.CloseAccountRequest, context: Context
    ) -> pb.CloseAccountResponse:
        """Mark an account for deletion."""
        await self._logins.close(common.account_id(request.account_id))
        return pb.CloseAccountResponse()

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        """Return the keys of an account."""
        keys = await self._keys.list(common.account_id(request.account_id))
        return pb.ListKeysResponse(keys=map(convert.key, keys))

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:
        """Return one key."""
        key = await self._keys.get(
            common.account_id(request.account_id), common.token(request.key_id, "key_id")
        )
        return pb.GetKeyResponse(key=convert.key(key))

    async def UpdateKey(
        self, request: pb.UpdateKeyRequest, context: Context
    ) -> pb.UpdateKeyResponse:
        """Change a key."""
        key = await self._keys.update(
            common.account_id(request.account_id),
            common.token(request.key_id, "key_id"),
            convert.patch(request),
        )
        return pb.UpdateKeyResponse(key=convert.key(key))

    async def DeleteKey(
        self, request: pb.DeleteKeyRequest, context: Context
    ) -> pb.DeleteKeyResponse:
        """Revoke a key."""
        key_id, key_hash = convert.key_hash_of(request)
        await self._keys.delete(common.account_id(request.account_id), key_id, key_hash)
        return pb.DeleteKeyResponse()

    async def RotateKey(
        self, request: pb.RotateKeyRequest, context: Context
    ) -> pb.RotateKeyResponse:
        """Replace a key's secret."""
        key = await self._keys.rotate(
            common.account_id(request.account_id),
            common.token(request.key_id, "key_id"),
            common.key_hash(request.key_hash),
            common.text(request.label, "label"),
        )
        return pb.RotateKeyResponse(key=convert.key(key))

    async def RecordKeyUses(
        self, request: pb.RecordKeyUsesRequest, context: Context
    ) -> pb.RecordKeyUsesResponse:
        """Keep when keys were last used."""
        await self._keys.record_uses(convert.uses(request.uses))
        return pb.RecordKeyUsesResponse()

    async def CreateDeviceCode(
        self, request: pb.CreateDeviceCodeRequest, context: Context
    ) -> pb.CreateDeviceCodeResponse:
        """Begin a device login."""
        code = await self._devices.begin(
            convert.machine_name(request.machine_name), convert.source(request.source)
        )
        return pb.CreateDeviceCodeResponse(
            device_code=code.device_code,
            user_code=code.user_code,
            lifetime=Duration(seconds=LIFE_S),
            interval=Duration(seconds=INTERVAL_S),
        )

    async def PollDeviceCode(
        self, request: pb.PollDeviceCodeRequest, context: Context
    ) -> pb.PollDeviceCodeResponse:
        """Ask for the token of a code."""
        poll = await self._devices.poll(convert.secret(request.device_code, "device_code"))
        return pb.PollDeviceCodeResponse(
            state=convert.state(poll.state), token=poll.token, account_id=poll.account_id
        )

    async def GetDeviceCode(
        self, request: pb.GetDeviceCodeRequest, context: Context
    ) -> pb.GetDeviceCodeResponse:
        """Return what a typed code would sign in."""
        user_code, found = await self._devices.look(
            convert.secret(request.user_code, "user_code"),
            common.account_id(request.account_id),
        )
        return pb.GetDeviceCodeResponse(
            user_code=user_code,
            machine_name=found.machine_name,
            state=convert.state(found.state),
            create_time=common.timestamp(found.created_at) if found.created_at else None,
            expire_time=common.timestamp(found.expires_at) if found.expires_at else None,
        )

    async def DecideDeviceCode(
        self, request: pb.DecideDeviceCodeRequest, context: Context
    ) -> pb.DecideDeviceCodeResponse:
        """Approve or deny a code."""
        found = await self._devices.decide(
            convert.secret(request.user_code, "user_code"),
            common.account_id(request.account_id),
            approve=request.approve,
        )
        return pb.DecideDeviceCodeResponse(
            machine_name=found.machine_name, state=convert.state(found.state)
        )

    async def ResolveProviderToken(
        self, request: pb.ResolveProviderTokenRequest, context: Context
    ) -> pb.ResolveProviderTokenResponse:
        """Return the token behind a secret."""
        token = await self._machines.resolve(common.key_hash(request.token_hash))
        return pb.ResolveProviderTokenResponse(token=convert.provider_token(token))

    async def ListProviderTokens(
        self, request: pb.ListProviderTokensRequest, context: Context
    ) -> pb.ListProviderTokensResponse:
        """Return the provider tokens of an account."""
        tokens = await self._machines.tokens(common.account_id(request.account_id))
        return pb.ListProviderTokensResponse(tokens=map(convert.provider_token, tokens))

    async def RevokeProviderToken(
        self, request: pb.RevokeProviderTokenRequest, context: Context
    ) -> pb.RevokeProviderTokenResponse:
        """Revoke a provider token."""
        await self._machines.revoke(
            common.account_id(request.account_id), common.token(request.token_id, "token_id")
        )
        return pb.RevokeProviderTokenResponse()

    async def CreateLinkChallenge(
        self, request: pb.CreateLinkChallengeRequest, context: Context
    ) -> pb.CreateLinkChallengeResponse:
        """Return a nonce for a machine to sign."""
        nonce = await self._machines.challenge(
            common.account_id(request.account_id), common.identity_key(request.identity_key)
        )
        return pb.CreateLinkChallengeResponse(nonce=nonce, lifetime=Duration(seconds=CHALLENGE_S))

    async def LinkMachine(
        self, request: pb.LinkMachineRequest, context: Context
    ) -> pb.LinkMachineResponse:
        """Link a machine that proves its key."""
        link = await self._machines.link(
            common.account_id(request.account_id),
            common.identity_key(request.identity_key),
            request.nonce,
            request.signature,
            convert.machine_name(request.machine_name),
        )
        return pb.LinkMachineResponse(link=common.link(link))

    async def UnlinkMachine(
        self, request: pb.UnlinkMachineRequest, context: Context
    ) -> pb.UnlinkMachineResponse:
        """Take a machine away from its account."""
        await self._machines.unlink(
            common.account_id(request.account_id), common.identity_key(request.identity_key)
        )
        return pb.UnlinkMachineResponse()

    async def OpenLogReport(
        self, request: pb.OpenLogReportRequest, context: Context
    ) -> pb.OpenLogReportResponse:
        """Begin a report of logs."""
        report_id, until = await self._reports.open(
            common.account_id(request.account_id),
            common.token(request.token_id, "token_id"),
            request.size,
        )
        return pb.OpenLogReportResponse(report_id=report_id, expire_time=common.timestamp(until))

    async def AddLogReportPart(
        self, request: pb.AddLogReportPartRequest, context: Context
    ) -> pb.AddLogReportPartResponse:
        """Keep a part of a report."""
        await self._reports.add(
            common.account_id(request.account_id),
            common.token(request.report_id, "report_id"),
            request.number,
            request.content,
        )
        return pb.AddLogReportPartResponse()

    async def ReadLogReportPart(
        self, request: pb.ReadLogReportPartRequest, context: Context
    ) -> pb.ReadLogReportPartResponse:
        """Return a part of a whole report."""
        content = await self._reports.read(
            common.token(request.report_id, "report_id"), request.number
        )
        return pb.ReadLogReportPartResponse(content=content)
