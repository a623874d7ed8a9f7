"""Images of a release, up to the command lines: what is built, signed and written down."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.release.errors import ReleaseError
from tools.release.images import ROOMS, Plan, release

DIGEST = "sha256:" + "ab" * 32


class Recorded:
    """Runs nothing and remembers everything."""

    def __init__(self, metadata: str = "", failing: str = "") -> None:
        self.ran: list[list[str]] = []
        self._metadata = metadata or json.dumps({"containerimage.digest": DIGEST})
        self._failing = failing

    def run(self, argv: Sequence[str]) -> None:
        self.ran.append(list(argv))
        if argv[0] == self._failing:
            raise ReleaseError(f"{argv[0]} failed")

    def metadata(self, path: Path) -> str:
        return self._metadata


def plan(**fields: object) -> Plan:
    known = {
        "version": "0.2.0",
        "commit": "c" * 40,
        "seconds": 1_700_000_000,
        "registry": "registry.example:5000/mesh",
        "key": "awskms:///alias/release",
    }
    return Plan(**{**known, **fields})  # type: ignore[arg-type]


def test_each_image_is_built_with_bill_and_provenance_and_signed_by_its_digest() -> None:
    runner = Recorded()
    references = list(release(plan(), runner))

    assert references == [f"registry.example:5000/mesh/darkbloom-{room}@{DIGEST}" for room in ROOMS]
    builds = [argv for argv in runner.ran if argv[0] == "docker"]
    signs = [argv for argv in runner.ran if argv[0] == "cosign"]
    assert len(builds) == len(signs) == len(ROOMS)
    for room, argv in zip(ROOMS, builds, strict=True):
        assert {"--sbom=true", "--provenance=mode=max", f"ROOM={room}"} <= set(argv)
        assert {"VERSION=0.2.0", f"COMMIT={'c' * 40}", "SOURCE_DATE_EPOCH=1700000000"} <= set(argv)
        assert f"registry.example:5000/mesh/darkbloom-{room}:0.2.0" in argv
    assert [argv[-1] for argv in signs] == references
    assert all(argv[argv.index("--key") + 1] == "awskms:///alias/release" for argv in signs)


def test_an_image_is_signed_right_after_it_is_pushed_and_all_are_written_down_last() -> None:
    runner = Recorded()
    references = list(release(plan(rooms=("router", "gateway")), runner))
    programs = [argv[0] for argv in runner.ran]
    assert programs[:-1] == ["docker", "cosign", "docker", "cosign"]
    assert runner.ran[-1][1:] == [
        "tools/images.py",
        f"ROUTER_IMAGE={references[0]}",
        f"GATEWAY_IMAGE={references[1]}",
    ]


def test_without_a_key_cosign_asks_who_runs_it() -> None:
    runner = Recorded()
    list(release(plan(key="", rooms=("router",)), runner))
    assert all("--key" not in argv for argv in runner.ran)


@pytest.mark.parametrize("failing", ["docker", "cosign"])
def test_nothing_is_written_down_where_a_step_fails(failing: str) -> None:
    runner = Recorded(failing=failing)
    with pytest.raises(ReleaseError, match="failed"):
        list(release(plan(), runner))
    assert all("tools/images.py" not in argv for argv in runner.ran)


@pytest.mark.parametrize(
    "metadata",
    ["{}", "no", "[]", '{"containerimage.digest": "latest"}', '{"containerimage.digest": 1}'],
)
def test_an_image_without_a_digest_is_not_signed(metadata: str) -> None:
    runner = Recorded(metadata)
    with pytest.raises(ReleaseError, match="no digest"):
        list(release(plan(), runner))
    assert [argv[0] for argv in runner.ran] == ["docker"]


def test_what_is_no_registry_and_no_room_is_refused() -> None:
    for registry in ("", "-o", "a b", "https://x", "x/"):
        with pytest.raises(ReleaseError, match="no registry"):
            plan(registry=registry)
    with pytest.raises(ReleaseError, match="edge is no room"):
        plan(rooms=("edge",))
