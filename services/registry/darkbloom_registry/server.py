"""The registry on the wire: translate, delegate, translate back."""

from collections.abc import AsyncIterator
from typing import final

from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_edge.signed_manifest import sign_manifest
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.interceptors import Context
from darkbloom_mesh.telemetry import CATALOG_READS, Metrics

from darkbloom_registry import convert, rollout_convert
from darkbloom_registry.admission import Admission
from darkbloom_registry.changes import DEVELOPMENT, Scope
from darkbloom_registry.errors import (
    BuildNotFoundError,
    RolloutNotFoundError,
    VersionNotFoundError,
)
from darkbloom_registry.feed import CatalogFeed, Heartbeat
from darkbloom_registry.names.naming import Naming
from darkbloom_registry.names.server import NamesServer
from darkbloom_registry.ports import Store
from darkbloom_registry.progress.following import Following
from darkbloom_registry.progress.server import ProgressServer
from darkbloom_registry.publishing import Publishing
from darkbloom_registry.rolling import Rolling
from darkbloom_registry.updates import DECIDING


@final
class RegistryServer(NamesServer, ProgressServer):
    """Serves all RPCs of the registry.

    Holds no resource of its own. Errors are those of the domain and leave as mesh statuses; a watch
    ends with UNAVAILABLE when this replica drains.
    """

    def __init__(
        self,
        store: Store,
        publishing: Publishing,
        naming: Naming,
        feed: CatalogFeed,
        metrics: Metrics,
        signer: Ed25519Signer | None = None,
        *,
        rolling: Rolling,
        following: Following,
        admission: Admission,
        clock: Clock,
    ) -> None:
        ProgressServer.__init__(self, store, rolling, following, clock=clock)
        NamesServer.__init__(self, store, naming, admission)
        self._publishing = publishing
        self._feed = feed
        self._signer = signer
        self._reads = metrics.counter(CATALOG_READS)

    async def WatchCatalog(
        self, request: pb.WatchCatalogRequest, context: Context
    ) -> AsyncIterator[pb.WatchCatalogResponse]:
        """Send the catalog now, each newer one, and heartbeats."""
        async for event in self._feed.watch(request.after_generation):
            if isinstance(event, Heartbeat):
                beat = pb.CatalogHeartbeat(generation=event.generation)
                yield pb.WatchCatalogResponse(heartbeat=beat)
            else:
                self._reads.labels("snapshot").inc()
                snapshot = convert.catalog_to(event)
                snapshot.downloads_are_granted = self._rolling.grants
                yield pb.WatchCatalogResponse(snapshot=snapshot)

    async def GetBuild(self, request: pb.GetBuildRequest, context: Context) -> pb.GetBuildResponse:
        """Return one build."""
        self._reads.labels("build").inc()
        generation = await self._store.generation()
        if request.if_generation and request.if_generation == generation:
            return pb.GetBuildResponse(generation=generation)
        build = await self._store.build(convert.key_from(request.build, "build"))
        if build is None:
            raise BuildNotFoundError("no such build")

        return pb.GetBuildResponse(build=convert.build_to(build), generation=generation)

    async def ListBuilds(
        self, request: pb.ListBuildsRequest, context: Context
    ) -> pb.ListBuildsResponse:
        """Return a page of builds."""
        self._reads.labels("builds").inc()
        after, size = convert.page_from(request.page)
        generation = await self._store.generation()
        if request.if_generation and request.if_generation == generation:
            return pb.ListBuildsResponse(generation=generation)
        # One more than asked tells whether another page follows.
        found = await self._store.builds(after, size + 1)
        page, more = found[:size], len(found) > size

        return pb.ListBuildsResponse(
            builds=map(convert.build_to, page),
            next_page_token=convert.page_token(page[-1].facts.id) if more else "",
            generation=generation,
        )

    async def GetManifest(
        self, request: pb.GetManifestRequest, context: Context
    ) -> pb.GetManifestResponse:
        """Return a manifest, exactly as registered, and the signature over it."""
        self._reads.labels("manifest").inc()
        manifest = await self._store.manifest(
            convert.key_from(request.build, "build"), convert.key_from(request.version, "version")
        )
        if manifest is None:
            raise VersionNotFoundError("no such version")

        answer = pb.GetManifestResponse(manifest=manifest)
        if self._signer is not None:
            answer.signature = sign_manifest(manifest, self._signer)
            answer.key_id = self._signer.key_id
        return answer

    async def ListManifestKeys(
        self, request: pb.ListManifestKeysRequest, context: Context
    ) -> pb.ListManifestKeysResponse:
        """Return the key that signs manifests."""
        if self._signer is None:
            return pb.ListManifestKeysResponse()
        key = pb.ManifestKey(key_id=self._signer.key_id, public_key=self._signer.public)
        return pb.ListManifestKeysResponse(keys=[key])

    async def RegisterBuild(
        self, request: pb.RegisterBuildRequest, context: Context
    ) -> pb.RegisterBuildResponse:
        """Register a version of a build."""
        actor = await self._admission.admit(context, Scope.PUBLISH)
        if request.promote:
            actor = await self._admission.decide(context, Scope.PROMOTE, request)
        build, generation = await self._publishing.register(
            convert.facts_from(request.build),
            request.manifest,
            promote_it=request.promote,
            sources=tuple(request.sources),
            template_files=dict(request.template_files),
            actor=actor,
        )
        return pb.RegisterBuildResponse(build=convert.build_to(build), generation=generation)

    async def PromoteVersion(
        self, request: pb.PromoteVersionRequest, context: Context
    ) -> pb.PromoteVersionResponse:
        """Make a version the active one."""
        actor = await self._admission.decide(context, Scope.PROMOTE, request)
        build, generation = await self._publishing.promote(
            convert.key_from(request.build, "build"), request.version, actor=actor
        )
        return pb.PromoteVersionResponse(build=convert.build_to(build), generation=generation)

    async def RetireVersion(
        self, request: pb.RetireVersionRequest, context: Context
    ) -> pb.RetireVersionResponse:
        """Revoke a version."""
        actor = await self._admission.decide(context, Scope.PROMOTE, request)
        build, generation = await self._publishing.retire(
            convert.key_from(request.build, "build"), request.version, actor=actor
        )
        return pb.RetireVersionResponse(build=convert.build_to(build), generation=generation)

    async def SetBuildStatus(
        self, request: pb.SetBuildStatusRequest, context: Context
    ) -> pb.SetBuildStatusResponse:
        """Change the life of a build."""
        actor = await self._admission.decide(context, Scope.PROMOTE, request)
        build, generation = await self._publishing.set_status(
            convert.key_from(request.build, "build"),
            convert.status_from(request.status),
            request.deprecation_date,
            leave_behind=request.leave_behind,
            actor=actor,
        )
        return pb.SetBuildStatusResponse(build=convert.build_to(build), generation=generation)

    async def UpdateBuild(
        self, request: pb.UpdateBuildRequest, context: Context
    ) -> pb.UpdateBuildResponse:
        """Change what is said about a build."""
        deciding = not DECIDING.isdisjoint(request.update_mask.paths)
        admit = self._admission
        actor = await (
            admit.decide(context, Scope.PUBLISH, request)
            if deciding
            else admit.admit(context, Scope.PUBLISH)
        )
        convert.key_from(request.build.id, "build.id")
        build, generation = await self._publishing.update(
            convert.facts_from(request.build), tuple(request.update_mask.paths), actor=actor
        )
        return pb.UpdateBuildResponse(build=convert.build_to(build), generation=generation)

    async def StartRollout(
        self, request: pb.StartRolloutRequest, context: Context
    ) -> pb.StartRolloutResponse:
        """Move an alias to another build in steps."""
        actor = await self._admission.decide(context, Scope.ALIAS, request)
        rollout, generation = await self._rolling.start(
            request.request_id,
            convert.key_from(request.alias, "alias"),
            convert.key_from(request.to_build, "to_build"),
            steps=request.steps,
            gates=rollout_convert.gates_from(request.gates),
            actor=request.actor if actor == DEVELOPMENT and request.actor else actor,
        )
        return pb.StartRolloutResponse(
            rollout=rollout_convert.rollout_to(rollout), generation=generation
        )

    async def GetRollout(
        self, request: pb.GetRolloutRequest, context: Context
    ) -> pb.GetRolloutResponse:
        """Return one rollout."""
        rollout = await self._store.rollout(convert.key_from(request.rollout_id, "rollout_id"))
        if rollout is None:
            raise RolloutNotFoundError("no such rollout")

        return pb.GetRolloutResponse(rollout=rollout_convert.rollout_to(rollout))

    async def ListRollouts(
        self, request: pb.ListRolloutsRequest, context: Context
    ) -> pb.ListRolloutsResponse:
        """Return a page of rollouts."""
        before, size = convert.page_from(request.page)
        alias = convert.key_from(request.alias, "alias")
        found = await self._store.rollouts(alias, before, size + 1)
        page, more = found[:size], len(found) > size

        return pb.ListRolloutsResponse(
            rollouts=map(rollout_convert.rollout_to, page),
            next_page_token=convert.page_token(page[-1].rollout_id) if more else "",
        )

    async def ChangeRollout(
        self, request: pb.ChangeRolloutRequest, context: Context
    ) -> pb.ChangeRolloutResponse:
        """Pause, resume or revert."""
        # Who stops or turns back must not have to wait for anybody.
        onward = request.action == pb.ROLLOUT_ACTION_RESUME
        admit = self._admission
        actor = await (
            admit.decide(context, Scope.ALIAS, request)
            if onward
            else admit.admit(context, Scope.ALIAS)
        )
        rollout, generation = await self._rolling.change(
            convert.key_from(request.rollout_id, "rollout_id"),
            rollout_convert.action_from(request.action),
            request.reason,
            actor=actor,
        )
        return pb.ChangeRolloutResponse(
            rollout=rollout_convert.rollout_to(rollout), generation=generation
        )

    async def ListChanges(
        self, request: pb.ListChangesRequest, context: Context
    ) -> pb.ListChangesResponse:
        """Return a page of what was changed by whom."""
        before, size = rollout_convert.changes_page(request.page)
        found = await self._store.changes(before, size + 1)
        page, more = found[:size], len(found) > size

        return pb.ListChangesResponse(
            changes=map(rollout_convert.change_to, page),
            next_page_token=convert.page_token(str(page[-1].generation)) if more else "",
        )
