"""The writes: each is one transaction, decided by pure rules, idempotent."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, final

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.manifest import Manifest, parse_manifest
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_registry.changes import Change
from darkbloom_registry.errors import (
    BuildNotFoundError,
    ImmutableError,
    ManifestInvalidError,
    NameTakenError,
    RolloutRunsError,
)
from darkbloom_registry.facts import (
    check_deprecation_date,
    check_facts,
    check_manifest,
    check_memory,
    check_namespace,
    check_sources,
)
from darkbloom_registry.model import (
    LISTED,
    Build,
    BuildFacts,
    BuildStatus,
    Rendering,
    VersionState,
)
from darkbloom_registry.names.takeovers import check_retirement, check_return
from darkbloom_registry.ports import Renderer, Store, Writing
from darkbloom_registry.progress.readers import newest_lives
from darkbloom_registry.templates import check_rendering, check_template_files
from darkbloom_registry.updates import updated
from darkbloom_registry.versions import promote, retire

NO_FILES: Mapping[str, bytes] = MappingProxyType({})


@final
class Publishing:
    """Registers versions, promotes them and says what becomes of builds.

    Every write holds the one lock of the generation, so rules are checked against what will be
    true at commit, and a repeated call changes nothing.
    """

    def __init__(
        self, store: Store, clock: Clock, renderer: Renderer, *, development: bool
    ) -> None:
        self._store = store
        self._renderer = renderer
        self._clock = clock
        self._development = development

    async def register(
        self,
        facts: BuildFacts,
        manifest: bytes,
        *,
        promote_it: bool,
        sources: Sequence[str] = (),
        template_files: Mapping[str, bytes] = NO_FILES,
        actor: str,
    ) -> tuple[Build, int]:
        """Register a version of a build; return the build and the generation.

        The same files again change nothing, not even the active version: a late retry must not
        undo a promotion that came after it. Only places of the files may change: mirrors move.
        A rendering of its template that is new, or newer, is taken too.

        Raises:
            InvalidArgumentError: a fact or the manifest breaks a rule, or the chat template does.
            ImmutableError: the version exists with other files.
            NameTakenError: an alias has this name.
            DevelopmentOnlyError: a `dev/` build outside development.
            RolloutRunsError: it shall be promoted while a rollout moves a name from or to it.
        """
        facts = check_facts(facts)
        check_namespace(facts.id, development=self._development)
        parsed = _parse(manifest)
        check_manifest(parsed, facts.id)
        facts = check_memory(facts, parsed, development=self._development)
        sources = check_sources(sources, development=self._development)
        template = await self._rendered(facts, parsed, template_files)

        async with self._store.write() as writing:
            build = await writing.build(facts.id)
            check_rendering(facts if build is None else build.facts, template)
            known = () if build is None else build.versions
            same = next((v for v in known if v.version == parsed.version), None)
            if build is not None and same is not None:
                if same.identity_sha256 != parsed.identity_sha256:
                    raise ImmutableError("this version exists with other files")
                said: dict[str, Any] = {}
                if sources and sources != same.sources:
                    await writing.set_sources(facts.id, parsed.version, sources)
                    said["sources"] = list(sources)
                if template is not None and template != same.template:
                    await writing.set_template(facts.id, parsed.version, template)
                    said["template"] = asdict(template)
                if said:
                    action = "sources" if "sources" in said else "template"
                    said["version"] = parsed.version
                    await writing.bump(self._change(actor, action, facts.id, said))
                    build = await _existing(writing, facts.id)
                return build, writing.generation

            now = self._clock.now()
            if build is None:
                if await writing.name_taken(facts.id):
                    raise NameTakenError("an alias has this name")
                await writing.add_build(facts, now)
            elif promote_it:
                await _at_rest(writing, facts.id)
            await writing.add_version(facts.id, parsed, manifest, now, sources, template)
            if promote_it:
                build = await _existing(writing, facts.id)
                await writing.set_states(facts.id, promote(build.versions, parsed.version))
            noted: dict[str, Any] = {
                "version": parsed.version,
                "identity_sha256": parsed.identity_sha256,
                "promoted": promote_it,
                "sources": list(sources),
                "template": asdict(template) if template is not None else None,
            }
            await writing.bump(self._change(actor, "register", facts.id, noted))

            return await _existing(writing, facts.id), writing.generation

    async def promote(self, build_id: str, version: str, *, actor: str) -> tuple[Build, int]:
        """Make a version the active one; return the build and the generation.

        Raises:
            BuildNotFoundError: there is no such build.
            VersionNotFoundError: the build has no such version.
            VersionRetiredError: the version was retired.
            RolloutRunsError: a rollout moves a name from or to the build.
        """
        async with self._store.write() as writing:
            build = await _existing(writing, build_id)
            changed = promote(build.versions, version)
            if not changed:
                return build, writing.generation

            await _at_rest(writing, build_id)
            await writing.set_states(build_id, changed)
            before = build.active.version if build.active else ""
            said = {"version": version, "before": before}
            await writing.bump(self._change(actor, "promote", build_id, said))

            return await _existing(writing, build_id), writing.generation

    async def retire(self, build_id: str, version: str, *, actor: str) -> tuple[Build, int]:
        """Revoke a version for good; return the build and the generation.

        Raises:
            BuildNotFoundError: there is no such build.
            VersionNotFoundError: the build has no such version.
            VersionActiveError: it is the one that consumers get.
        """
        async with self._store.write() as writing:
            build = await _existing(writing, build_id)
            changed = retire(build.versions, version)
            if changed:
                await writing.set_states(build_id, changed)
                await writing.bump(self._change(actor, "retire", build_id, {"version": version}))

            return await _existing(writing, build_id), writing.generation

    async def set_status(
        self,
        build_id: str,
        status: BuildStatus,
        deprecation_date: str,
        *,
        leave_behind: int = 0,
        actor: str,
    ) -> tuple[Build, int]:
        """Change the life of a build; return it and the generation.

        Args:
            build_id: Which.
            status: What becomes of it.
            deprecation_date: YYYY-MM-DD, or empty.
            leave_behind: Machines that may lose a build whose id a name took over.
            actor: Who does it.

        Raises:
            BuildNotFoundError: there is no such build.
            InvalidArgumentError: the date is none, or `leave_behind` is negative.
            RolloutRunsError: a rollout moves a name from or to it.
            TakeoverEarlyError: a name took its id over, and machines still need it.
            NameTakenError: it shall be served again, and a name has its id for good.
        """
        check_deprecation_date(deprecation_date)
        if leave_behind < 0:
            raise InvalidArgumentError("must not be negative", "leave_behind")
        # Before the one lock: what is read with it held would need a second connection.
        readers = newest_lives(await self._store.readers(self._clock.now()))
        async with self._store.write() as writing:
            build = await _existing(writing, build_id)
            before = (build.facts.status, build.facts.deprecation_date)
            if before == (status, deprecation_date):
                return build, writing.generation
            await _at_rest(writing, build_id)
            name = await writing.alias(build_id)
            if status in LISTED:
                check_return(name)
            elif build.listed:
                check_retirement(name, readers, writing.generation, leave_behind)

            await writing.set_status(build_id, status, deprecation_date)
            said = {
                "status": status.value,
                "deprecation_date": deprecation_date,
                "before": before[0].value,
            }
            await writing.bump(self._change(actor, "status", build_id, said))

            return await _existing(writing, build_id), writing.generation

    async def update(
        self, wanted: BuildFacts, fields: Sequence[str], *, actor: str
    ) -> tuple[Build, int]:
        """Change what is said about a build, in these fields; return it and the generation.

        Raises:
            BuildNotFoundError: there is no such build.
            InvalidArgumentError: a field may not change, or breaks a rule, or the template of a
                version cannot do what the build would promise.
        """
        async with self._store.write() as writing:
            build = await _existing(writing, wanted.id)
            changed = check_facts(updated(build.facts, wanted, fields))
            if changed == build.facts:
                return build, writing.generation
            if "capabilities" in fields:
                _check_renderings(changed, build)
            await writing.set_facts(changed)
            before, after = asdict(build.facts), asdict(changed)
            said = {
                name: {"before": before[name], "after": after[name]}
                for name in fields
                if before[name] != after[name]
            }
            await writing.bump(self._change(actor, "update", wanted.id, said))
            return await _existing(writing, wanted.id), writing.generation

    async def _rendered(
        self, facts: BuildFacts, manifest: Manifest, files: Mapping[str, bytes]
    ) -> Rendering | None:
        files = check_template_files(manifest, files, development=self._development)
        if not files:
            return None
        known = await self._store.build(facts.id)
        # A version is tried with images before its build says that it sees, or no build ever could.
        promised = {*facts.capabilities, *(known.facts.capabilities if known is not None else ())}
        return await self._renderer.render(files, vision="vision" in promised)

    def _change(self, actor: str, action: str, subject: str, detail: dict[str, Any]) -> Change:
        return Change(
            actor=actor, action=action, subject=subject, time=self._clock.now(), detail=detail
        )


async def _existing(writing: Writing, build_id: str) -> Build:
    build = await writing.build(build_id)
    if build is None:
        raise BuildNotFoundError("no such build")

    return build


def _check_renderings(facts: BuildFacts, build: Build) -> None:
    """Refuse promises that the template of a version which consumers get, or may get, breaks."""
    for version in build.versions:
        served = version.state in (VersionState.ACTIVE, VersionState.READY)
        if served:
            check_rendering(facts, version.template)


async def _at_rest(writing: Writing, build_id: str) -> None:
    """Refuse where a rollout judges this build: other bytes would pass gates by its name."""
    for rollout in await writing.live_rollouts():
        if build_id in (rollout.from_build, rollout.to_build):
            raise RolloutRunsError("a rollout moves a name from or to this build")


def _parse(data: bytes) -> Manifest:
    try:
        return parse_manifest(data)
    except MalformedError as error:
        field = "manifest" if error.field is None else f"manifest.{error.field}"
        raise ManifestInvalidError(error.what, field) from None
