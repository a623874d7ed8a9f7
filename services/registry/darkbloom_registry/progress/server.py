"""What routers and gateways report, and what is told of it, on the wire."""

from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceServicer
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.interceptors import Context

from darkbloom_registry import convert, rollout_convert
from darkbloom_registry.ports import Store
from darkbloom_registry.progress import convert as progress_convert
from darkbloom_registry.progress.following import Following
from darkbloom_registry.rolling import Rolling


class ProgressServer(RegistryServiceServicer):
    """The part of the registry's RPCs that changes no catalog by itself."""

    def __init__(
        self, store: Store, rolling: Rolling, following: Following, *, clock: Clock
    ) -> None:
        self._store = store
        self._rolling = rolling
        self._following = following
        self._clock = clock

    async def ReportModelStates(
        self, request: pb.ReportModelStatesRequest, context: Context
    ) -> pb.ReportModelStatesResponse:
        """Take what a router saw."""
        session, sequence = rollout_convert.session_from(request.session, request.sequence)
        granted = await self._rolling.report(
            session,
            sequence,
            rollout_convert.seen_from(request.builds),
            rollout_convert.states_from(request.states, self._clock.now()),
            min(max(0, request.downloads_wanted), rollout_convert.MAX_ROWS),
        )
        return pb.ReportModelStatesResponse(downloads_granted=granted)

    async def ConfirmCatalog(
        self, request: pb.ConfirmCatalogRequest, context: Context
    ) -> pb.ConfirmCatalogResponse:
        """Note where a replica stands."""
        reader = progress_convert.reader_from(request, self._clock.now())
        if request.leaving:
            await self._following.leave(reader.session)
        else:
            await self._following.confirm(reader)
        return pb.ConfirmCatalogResponse()

    async def GetPropagation(
        self, request: pb.GetPropagationRequest, context: Context
    ) -> pb.GetPropagationResponse:
        """Return who goes by a generation."""
        found = await self._following.propagation(max(0, request.generation))
        return progress_convert.propagation_to(found)

    async def GetBuildProgress(
        self, request: pb.GetBuildProgressRequest, context: Context
    ) -> pb.GetBuildProgressResponse:
        """Return how far a build is."""
        build = convert.key_from(request.build, "build")
        found, rollouts = await self._following.progress(build)
        return progress_convert.progress_to(build, found, rollouts)

    async def CheckModelHash(
        self, request: pb.CheckModelHashRequest, context: Context
    ) -> pb.CheckModelHashResponse:
        """Return what a weight hash is to a build."""
        build = convert.key_from(request.build, "build")
        generation = await self._store.generation()
        state, accepted = await self._following.check_hash(build, request.weight_hash.lower())
        return pb.CheckModelHashResponse(
            state=convert.state_to(state),
            accepted=accepted,
            generation=generation,
        )

    async def ListModelStates(
        self, request: pb.ListModelStatesRequest, context: Context
    ) -> pb.ListModelStatesResponse:
        """Return a page of what machines do with builds."""
        after, size = convert.page_from(request.page)
        build, _, provider = after.partition("\n")
        wanted = convert.key_from(request.build, "build")
        found = await self._store.model_states(wanted, (build, provider), size + 1)
        page, more = found[:size], len(found) > size
        last = f"{page[-1].build}\n{page[-1].provider_id}" if more else ""

        return pb.ListModelStatesResponse(
            states=map(rollout_convert.state_to, page),
            next_page_token=convert.page_token(last) if more else "",
        )
