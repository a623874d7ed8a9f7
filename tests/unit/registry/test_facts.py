import dataclasses
import hashlib

import pytest
from darkbloom_edge.manifest import FileRole, ManifestFile, build_manifest, parse_manifest
from darkbloom_edge.memory import GIB, Memory, fits
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_registry.errors import DevelopmentOnlyError, ManifestInvalidError
from darkbloom_registry.facts import check_facts, check_manifest, check_memory, check_namespace
from darkbloom_registry.model import BuildFacts, BuildStatus

FACTS = BuildFacts(
    id="org/name",
    display_name="",
    family="llama",
    architecture="llama",
    quantization="4bit",
    max_context_length=2048,
    max_output_length=1024,
    min_ram_gb=4,
    capabilities=("chat",),
    required_provider_capabilities=(),
    status=BuildStatus.BETA,
    description="",
    model_type="",
    hugging_face_id="",
    deprecation_date="",
    runtime_parameters_json="",
)


def manifest(build: str, role: FileRole, size_bytes: int = 1):
    entry = ManifestFile(
        path="file", size_bytes=size_bytes, sha256=hashlib.sha256(b"x").hexdigest(), role=role
    )
    return parse_manifest(build_manifest(build, "v1", [entry], "2026-01-01T00:00:00Z"))


def test_defaults_are_filled_in() -> None:
    facts = check_facts(FACTS)
    assert (facts.display_name, facts.model_type) == ("org/name", "text")


def test_capabilities_keep_their_first_order_without_repetitions() -> None:
    facts = check_facts(
        dataclasses.replace(FACTS, capabilities=(" tools", "chat", "", "tools", "chat "))
    )
    assert facts.capabilities == ("tools", "chat")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "/abs"),
        ("id", ""),
        ("family", " "),
        ("architecture", ""),
        ("quantization", ""),
        ("max_context_length", 0),
        ("max_output_length", -1),
        ("max_output_length", 4096),
        ("min_ram_gb", -1),
        ("capabilities", ("telepathy",)),
        ("required_provider_capabilities", tuple(map(str, range(65)))),
        ("description", "x" * 4097),
        ("hugging_face_id", "a\0b"),
        ("deprecation_date", "20260101"),
        ("deprecation_date", "2026-02-30"),
        ("runtime_parameters_json", "[]"),
        ("runtime_parameters_json", '{"a":1,"a":2}'),
    ],
)
def test_a_wrong_fact_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_facts(dataclasses.replace(FACTS, **{field: value}))
    assert caught.value.field == f"build.{field}"


def test_scripted_builds_exist_only_in_development() -> None:
    check_namespace("dev/scripted", development=True)
    check_namespace("developer/model", development=False)
    with pytest.raises(DevelopmentOnlyError):
        check_namespace("dev/scripted", development=False)


def test_a_model_has_weights_unless_it_is_scripted() -> None:
    check_manifest(manifest("org/name", FileRole.WEIGHT), "org/name")
    check_manifest(manifest("dev/scripted", FileRole.CONFIG), "dev/scripted")
    with pytest.raises(ManifestInvalidError, match="weights"):
        check_manifest(manifest("org/name", FileRole.CONFIG), "org/name")


def test_a_manifest_of_another_build_is_refused() -> None:
    with pytest.raises(ManifestInvalidError, match="another build"):
        check_manifest(manifest("org/other", FileRole.WEIGHT), "org/name")


@pytest.mark.parametrize("size_bytes", [1, 5 * GIB, 60 * GIB + 1])
def test_the_memory_that_a_build_needs_is_what_machines_load_by(size_bytes: int) -> None:
    files = manifest("org/name", FileRole.WEIGHT, size_bytes)
    unsaid = dataclasses.replace(FACTS, min_ram_gb=0)
    needed = check_memory(unsaid, files, development=False).min_ram_gb
    for ram, fitting in ((needed, True), (needed - 1, False)):
        machine = Memory(physical=ram * GIB, available=ram * GIB)
        assert fits(size_bytes, machine) is fitting

    more = dataclasses.replace(FACTS, min_ram_gb=needed + 1)
    assert check_memory(more, files, development=False) == more
    less = dataclasses.replace(FACTS, min_ram_gb=needed - 1)
    with pytest.raises(InvalidArgumentError, match=f"need {needed} GiB") as caught:
        check_memory(less, files, development=False)
    assert caught.value.field == "build.min_ram_gb"
    assert check_memory(less, files, development=True) == less
