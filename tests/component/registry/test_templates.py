"""Chat templates are rendered where a version is registered, in a process that may end badly."""

import asyncio
import hashlib
import json
import sys
from collections.abc import Mapping

import pytest
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_edge.chat_template.fixtures import CALLED, PLAIN, TOOLS, examine
from darkbloom_edge.chat_template.template import ChatTemplate
from darkbloom_edge.manifest import ManifestFile, build_manifest, role_of
from darkbloom_mesh.errors import InvalidArgumentError, StoreUnavailableError
from darkbloom_mesh.testing import FakeClock
from darkbloom_registry.changes import Scope
from darkbloom_registry.model import Rendering
from darkbloom_registry.render_child import MEMORY_BYTES
from darkbloom_registry.rendering import AT_ONCE, ProcessRenderer
from darkbloom_registry.store import PostgresStore
from google.protobuf.field_mask_pb2 import FieldMask

from tests.component.registry.harness import facts, publishing_key, served

BUILD = "org/model"
GOOD = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}{{ tools | tojson }}"
NO_TOOLS = "{{ messages[0].content }}{% for t in tools or [] %}{{ t.function.x.y.z }}{% endfor %}"
REFUSES = "{{ raise_exception('never') }}{{ tools }}"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}"


def files(source: str, **more: str) -> dict[str, bytes]:
    """A version of one weight file and the files of its template."""
    return {
        "model.safetensors": b"weights",
        "chat_template.jinja": source.encode(),
        **{name.replace("__", "."): text.encode() for name, text in more.items()},
    }


def request(
    content: Mapping[str, bytes],
    *,
    version: str = "v1",
    sent: Mapping[str, bytes] | None = None,
    capabilities: tuple[str, ...] = ("chat",),
) -> pb.RegisterBuildRequest:
    listed = []
    for name, data in content.items():
        role = role_of(name)
        assert role is not None
        digest = hashlib.sha256(data).hexdigest()
        listed.append(ManifestFile(path=name, size_bytes=len(data), sha256=digest, role=role))
    templates = {name: data for name, data in content.items() if name != "model.safetensors"}
    return pb.RegisterBuildRequest(
        build=facts(BUILD, capabilities=capabilities),
        manifest=build_manifest(BUILD, version, listed, "2026-01-01T00:00:00Z"),
        promote=True,
        template_files=templates if sent is None else sent,
    )


async def test_the_catalog_says_what_the_template_of_each_version_renders(
    store: PostgresStore, clock: FakeClock
) -> None:
    config = json.dumps({"chat_template": "{{ messages[0].content }} of the tokenizer"})
    content = files(GOOD, tokenizer_config__json=config)
    async with served(store, clock) as registry:
        answer = await registry.call("RegisterBuild", request(content))
        (version,) = (await registry.catalog(answer.generation)).builds[0].versions

    expected = examine(ChatTemplate(GOOD))
    assert version.template.template_sha256 == hashlib.sha256(GOOD.encode()).hexdigest()
    assert dict(version.template.fixtures) == expected.fixtures
    assert {PLAIN, TOOLS, CALLED} == set(expected.fixtures)


@pytest.mark.parametrize(
    ("source", "capabilities", "words"),
    [
        ("{% if", ("chat",), "does not compile"),
        (REFUSES, ("chat",), "a plain conversation"),
        (NO_TOOLS, ("chat", "tools"), "does not render tools"),
        ("{{ messages[0].content + '' }}", ("chat", "vision"), "does not render images"),
    ],
    ids=["broken", "refuses", "tools", "vision"],
)
async def test_a_template_that_cannot_do_what_its_build_promises_is_refused(
    store: PostgresStore,
    clock: FakeClock,
    source: str,
    capabilities: tuple[str, ...],
    words: str,
) -> None:
    async with served(store, clock) as registry:
        asked = request(files(source), capabilities=capabilities)
        error = await registry.refused("RegisterBuild", asked)
        builds = await registry.call("ListBuilds", pb.ListBuildsRequest())

    assert isinstance(error, InvalidArgumentError)
    assert words in error.message
    assert not builds.builds


async def test_a_build_that_promises_no_tools_may_render_none(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        answer = await registry.call("RegisterBuild", request(files(NO_TOOLS)))
    assert answer.build.versions[0].template.fixtures[TOOLS] == ""
    assert answer.build.versions[0].template.fixtures[PLAIN] != ""


async def test_a_build_never_comes_to_promise_what_its_templates_cannot_do(
    store: PostgresStore, clock: FakeClock
) -> None:
    def update(*capabilities: str) -> pb.UpdateBuildRequest:
        wanted = facts(BUILD, capabilities=("chat", *capabilities))
        return pb.UpdateBuildRequest(
            build=wanted, update_mask=FieldMask(paths=["capabilities", "description"])
        )

    async with served(store, clock) as registry:
        await registry.call("RegisterBuild", request(files(NO_TOOLS)))
        error = await registry.refused("UpdateBuild", update("tools"))
        assert "does not render tools" in error.message
        # Nobody tried images: who says that it sees has the same files tried again first.
        error = await registry.refused("UpdateBuild", update("vision"))
        assert "does not render images" in error.message
        seeing = request(files(NO_TOOLS), capabilities=("chat", "vision"))
        await registry.call("RegisterBuild", seeing)
        updated = await registry.call("UpdateBuild", update("vision"))
        assert list(updated.build.capabilities) == ["chat", "vision"]

        # A later version is held to what the build promises, whatever its publisher says here.
        blind = request(files("{{ messages[0].content + '' }}"), version="v2")
        error = await registry.refused("RegisterBuild", blind)
        assert "does not render images" in error.message


async def test_files_of_the_template_are_those_of_the_manifest(
    store: PostgresStore, clock: FakeClock
) -> None:
    content = files(GOOD, tokenizer_config__json="{}")
    good = {name: content[name] for name in ("chat_template.jinja", "tokenizer_config.json")}
    wrong = (
        ({**good, "chat_template.jinja": b"other"}, "not the bytes"),
        ({**good, "chat_template.json": b"{}"}, "lists no such"),
        ({"chat_template.jinja": good["chat_template.jinja"]}, "tokenizer_config.json is required"),
    )
    async with served(store, clock) as registry:
        for sent, words in wrong:
            error = await registry.refused("RegisterBuild", request(content, sent=sent))
            assert words in error.message


async def test_production_wants_the_template_and_a_version_before_it_may_get_one(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:
        first = await registry.call("RegisterBuild", request(files(GOOD), sent={}))
        assert not first.build.versions[0].HasField("template")
        second = await registry.call("RegisterBuild", request(files(GOOD)))
        third = await registry.call("RegisterBuild", request(files(GOOD)))
        assert second.build.versions[0].HasField("template")
        assert (second.generation, third.generation) == (2, 2)
        (change, _) = (await registry.call("ListChanges", pb.ListChangesRequest())).changes
        assert change.action == "template"

    async with served(store, clock, development=False) as registry:
        registry.key = await publishing_key(store, "somebody", *Scope)
        late = request(files(GOOD), version="v2", sent={})
        late.build.min_ram_gb = 0
        error = await registry.refused("RegisterBuild", late)
    assert "chat_template.jinja is required" in error.message


async def test_a_template_without_end_costs_its_publisher_an_answer_and_nobody_else_anything() -> (
    None
):
    renderer = ProcessRenderer()
    found = await renderer.render({"chat_template.jinja": ENDLESS.encode()}, vision=False)
    assert set(found.fixtures.values()) == {""}


@pytest.mark.parametrize(
    "program",
    [
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass",
        "raise SystemExit(1)",
    ],
    ids=["killed", "failed"],
)
async def test_a_renderer_that_is_killed_refuses_the_template(program: str) -> None:
    renderer = ProcessRenderer((sys.executable, "-c", program))
    with pytest.raises(InvalidArgumentError, match="without end"):
        await renderer.render({"chat_template.jinja": b"x"}, vision=False)


async def test_one_template_cannot_take_the_memory_of_the_registry() -> None:
    widest = '"\U0001f600" * 33000000'
    filled = "".join(f"{{% set v{n} = {widest} %}}" for n in range(3)) + "hello"
    found: Rendering | None
    try:
        found = await ProcessRenderer().render(
            {"chat_template.jinja": filled.encode()}, vision=True
        )
    except InvalidArgumentError:
        found = None
    assert found is None or set(found.fixtures.values()) == {""}
    assert AT_ONCE * MEMORY_BYTES <= 256 << 20


async def test_who_waits_behind_a_slow_template_is_not_called_slow() -> None:
    hangs = "import sys, time; sys.stdin.read(); time.sleep(600)"
    renderer = ProcessRenderer((sys.executable, "-c", hangs), wall_s=1.0)

    async def outcome() -> type[Exception]:
        try:
            await renderer.render({"chat_template.jinja": b"x"}, vision=False)
        except (InvalidArgumentError, StoreUnavailableError) as error:
            return type(error)
        raise AssertionError("a hanging renderer answered")

    # A place comes free as the next one gives up, and either may win; the last one never has it.
    first, *_, last = await asyncio.gather(*(outcome() for _ in range(2 * AT_ONCE + 1)))
    assert (first, last) == (InvalidArgumentError, StoreUnavailableError)


async def test_a_renderer_that_hangs_is_ended() -> None:
    hangs = "import sys, time; sys.stdin.read(); time.sleep(600)"
    renderer = ProcessRenderer((sys.executable, "-c", hangs), wall_s=1.0)
    with pytest.raises(InvalidArgumentError, match="without end"):
        await renderer.render({"chat_template.jinja": b"x"}, vision=False)
