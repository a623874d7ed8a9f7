"""Who may call what once certificates say who calls: one row for each method of `protos/`.

A method that has no row is nobody's. `operator` is a person at a command line; `nobody` calls what
only tests or the public listener serve. Health needs no row; reflection is the operators'.
"""

from collections.abc import Mapping

OPERATOR = "operator"
ROOMS = ("gateway", "router", "billing", "attestation", "registry", OPERATOR)

_ATTESTATION = "darkbloom.attestation.v1"
_BILLING = "darkbloom.billing.v1"
_REGISTRY = "darkbloom.registry.v1"
_ROUTER = "darkbloom.router.v1"

MATRIX: Mapping[str, Mapping[str, str]] = {
    f"{_ATTESTATION}.AttestationService": {
        "router": "EvaluateRegistration CreateChallenge VerifyChallenge AnswerCodeChallenge "
        "ReportChallengeTimeout ReportViolation TouchSessions",
        "gateway": "RecordPosture RegisterReceiptKey ListEvidence",
        "gateway router": "WatchRevocations",
        "gateway billing": "ListVerdictKeys ListReceiptKeys",
        "gateway operator": "ListCodeReleases",
        "operator": "RegisterCodeRelease ActivateCodeRelease DeactivateCodeRelease "
        "GetReleaseOffer ChangeReleaseOffer",
    },
    f"{_ATTESTATION}.LogService": {
        "gateway": "GetLogHead ListLogEntries GetInclusionProof GetConsistencyProof",
        "billing": "AppendReceiptBatch",
    },
    f"{_BILLING}.AccountService": {
        "gateway": "ResolveKey WatchKeys RevokeKey ListProviderLinks",
        "router": "GetProviderLink",
        "gateway operator": "CreateKey GetBalance ListUsage ListEarnings",
        "operator": "CreateAccount LinkProvider Grant",
    },
    f"{_BILLING}.IdentityService": {
        "gateway": "GetProfile CloseAccount ListKeys GetKey UpdateKey DeleteKey "
        "RotateKey RecordKeyUses CreateDeviceCode PollDeviceCode GetDeviceCode DecideDeviceCode "
        "ResolveProviderToken ListProviderTokens RevokeProviderToken CreateLinkChallenge "
        "LinkMachine UnlinkMachine OpenLogReport AddLogReportPart ReadLogReportPart",
        "gateway operator": "VerifyLogin",
    },
    f"{_BILLING}.LedgerService": {
        "gateway": "Hold ExtendHold RecordReceipts",
        "router": "RenewHolds SettleHolds",
        "gateway router": "ReleaseHolds",
    },
    f"{_BILLING}.OperatorService": {
        "gateway operator": "GetAccountView UpdateAccount CreditAccount SetPlatformPrice "
        "CreateInvite ListInvites DeactivateInvite",
        "operator": "ListAccounts RevokeAccountKey ListAccountKeys ProposeFunding ApproveFunding "
        "ListBudgets ListManualWithdrawals ResolveWithdrawal ListActions RunAudit GetSealHead "
        "PlanErasure ConfirmErasure CancelErasure ListErasures ExportTable",
    },
    f"{_BILLING}.PaymentService": {
        "gateway": "GetPaymentOptions CreateDeposit GetDeposit DeliverEvent CreateCardSetup "
        "GetAutoTopUp SetAutoTopUp DeleteCard StartOnboarding GetPayoutAccount "
        "CreateDashboardLink UnlinkPayoutAccount CreateWithdrawal",
        "gateway operator": "ListWithdrawals",
    },
    f"{_BILLING}.PriceService": {
        "gateway": "ListPrices ListOwnPrices DeletePrice Quote",
        "router": "WatchOwnPrices",
        "gateway operator": "SetPrice",
    },
    f"{_BILLING}.ProgrammeService": {
        "gateway": "RedeemInvite RegisterReferral ApplyReferral GetReferral",
    },
    f"{_BILLING}.ReceiptService": {"gateway": "GetReceipt"},
    f"{_BILLING}.ReportService": {
        "gateway": "GetWallets SearchUsage ListStatement SearchEarnings GetEarningsSummary "
        "ListInsights GetLeaderboard GetNetworkTotals GetPublicName SetPublicName GetDossier",
    },
    f"{_REGISTRY}.RegistryService": {
        "gateway router attestation": "WatchCatalog",
        "gateway": "GetManifest ListManifestKeys",
        "gateway operator": "GetBuild ListBuilds ListAliases ListMarketplaceAliases GetRollout "
        "ListRollouts ListModelStates GetBuildProgress GetPropagation ListChanges",
        "gateway router": "ConfirmCatalog",
        "attestation router operator": "CheckModelHash",
        "router": "ReportModelStates",
        "operator": "RegisterBuild PromoteVersion RetireVersion SetBuildStatus UpdateBuild "
        "UpsertAlias UpsertMarketplaceAlias DeleteAlias StartRollout ChangeRollout",
    },
    f"{_ROUTER}.FleetService": {
        "gateway operator": "ListProviders ListBuildCapacity",
        "gateway operator router": "ExplainProvider",
    },
    f"{_ROUTER}.GatewayLaneService": {"gateway": "Connect"},
    f"{_ROUTER}.PeerLaneService": {"router": "Connect"},
    f"{_ROUTER}.ProviderLinkService": {"": "Connect"},
    "grpc.reflection.v1alpha.ServerReflection": {OPERATOR: "ServerReflectionInfo"},
}
"""Service, then callers, then methods."""


def flat(matrix: Mapping[str, Mapping[str, str]]) -> Mapping[str, frozenset[str]]:
    """Return callers by method, as methods are named on the wire.

    Raises:
        ValueError: A method has two rows, or a caller is no room.
    """
    rows: dict[str, frozenset[str]] = {}
    for service, lines in matrix.items():
        for callers, methods in lines.items():
            named = frozenset(callers.split())
            for method in methods.split():
                name = f"/{service}/{method}"
                if name in rows or not named <= set(ROOMS):
                    raise ValueError(f"a row of {name} is wrong")
                rows[name] = named
    return rows
