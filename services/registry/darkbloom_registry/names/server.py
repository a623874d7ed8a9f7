"""The names of models on the wire."""

from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceServicer
from darkbloom_mesh.interceptors import Context

from darkbloom_registry import convert
from darkbloom_registry.admission import Admission
from darkbloom_registry.changes import Scope
from darkbloom_registry.names.naming import Naming
from darkbloom_registry.ports import Store


class NamesServer(RegistryServiceServicer):
    """The RPCs about aliases of both kinds."""

    def __init__(self, store: Store, naming: Naming, admission: Admission) -> None:
        self._store = store
        self._naming = naming
        self._admission = admission

    async def UpsertAlias(
        self, request: pb.UpsertAliasRequest, context: Context
    ) -> pb.UpsertAliasResponse:
        """Create or change an alias."""
        actor = await self._admission.decide(context, Scope.ALIAS, request)
        alias, generation = await self._naming.upsert_alias(
            convert.alias_from(request.alias), actor=actor
        )
        return pb.UpsertAliasResponse(alias=convert.alias_to(alias), generation=generation)

    async def UpsertMarketplaceAlias(
        self, request: pb.UpsertMarketplaceAliasRequest, context: Context
    ) -> pb.UpsertMarketplaceAliasResponse:
        """Create or change a name for marketplaces."""
        actor = await self._admission.decide(context, Scope.ALIAS, request)
        alias, generation = await self._naming.upsert_marketplace_alias(
            convert.marketplace_alias_from(request.alias), actor=actor
        )
        return pb.UpsertMarketplaceAliasResponse(
            alias=convert.marketplace_alias_to(alias), generation=generation
        )

    async def DeleteAlias(
        self, request: pb.DeleteAliasRequest, context: Context
    ) -> pb.DeleteAliasResponse:
        """Take a name of either kind away."""
        actor = await self._admission.decide(context, Scope.ALIAS, request)
        generation = await self._naming.delete_alias(
            convert.key_from(request.alias_id, "alias_id"), actor=actor
        )
        return pb.DeleteAliasResponse(generation=generation)

    async def ListAliases(
        self, request: pb.ListAliasesRequest, context: Context
    ) -> pb.ListAliasesResponse:
        """Return a page of aliases."""
        after, size = convert.page_from(request.page)
        found = await self._store.aliases(after, size + 1)
        page, more = found[:size], len(found) > size

        return pb.ListAliasesResponse(
            aliases=map(convert.alias_to, page),
            next_page_token=convert.page_token(page[-1].alias_id) if more else "",
        )

    async def ListMarketplaceAliases(
        self, request: pb.ListMarketplaceAliasesRequest, context: Context
    ) -> pb.ListMarketplaceAliasesResponse:
        """Return a page of names for marketplaces."""
        after, size = convert.page_from(request.page)
        found = await self._store.marketplace_aliases(after, size + 1)
        page, more = found[:size], len(found) > size

        return pb.ListMarketplaceAliasesResponse(
            aliases=map(convert.marketplace_alias_to, page),
            next_page_token=convert.page_token(page[-1].alias_id) if more else "",
        )
