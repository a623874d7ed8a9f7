"""What providers install: the catalog, signed manifests and the keys, without an account."""

from tests.component.gateway.harness import Harness
from tests.component.gateway.neighbours import BUILD
from tests.fakes.router import WEIGHTS


async def test_the_catalog_says_what_a_machine_must_know(mesh: Harness) -> None:
    answer = await mesh.http.get("/v1/models/catalog?type=text&include_aliases=1")

    assert answer.headers["cache-control"] == "public, max-age=60"
    (entry,) = answer.json()["models"]
    assert entry == (await mesh.http.get(f"/v1/models/catalog/{BUILD}")).json()
    assert (entry["id"], entry["version"], entry["min_ram_gb"]) == (BUILD, "v2", 8)
    assert entry["est_resident_gb"] == 0.1
    assert (entry["aggregate_sha256"], entry["size_bytes"]) == (WEIGHTS, 10)
    assert entry["r2_prefix"].endswith("/v2")
    assert entry["sources"] == ["https://mirror.example/tiny"]
    # A version that was never promoted is nobody's to install.
    assert [one["version"] for one in entry["versions"]] == ["v1", "v2"]
    aliases = {row["id"]: row["desired_build"] for row in answer.json()["aliases"]}
    assert aliases == {"gone": "dev/absent", "tiny": BUILD}


async def test_another_type_is_refused_by_name(mesh: Harness) -> None:
    answer = await mesh.http.get("/v1/models/catalog?type=video")

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "type"


async def test_a_manifest_comes_exactly_as_registered_with_its_signature(mesh: Harness) -> None:
    path = f"/v1/models/catalog/manifest/{BUILD}"
    answers = [await mesh.http.get(path), await mesh.http.get(f"{path}?version=v2")]

    assert [answer.content for answer in answers] == [b"{}\n", b"{}\n"]
    assert answers[0].headers["x-darkbloom-manifest-key-id"] == "k1"
    assert answers[0].headers["x-darkbloom-manifest-signature"].startswith("c3Nz")
    keys = (await mesh.http.get("/v1/catalog/keys")).json()["manifest_keys"]
    assert [key["key_id"] for key in keys] == ["k1"]
    assert mesh.registry.reads == [(BUILD, "v2")]


async def test_what_is_not_in_the_catalog_never_reaches_the_registry(mesh: Harness) -> None:
    for path in ("no/such", f"{BUILD}?version=v3", f"{BUILD}?version=../v2"):
        answer = await mesh.http.get(f"/v1/models/catalog/manifest/{path}")
        assert answer.status_code == 404
    assert (await mesh.http.get("/v1/models/catalog/no/such")).status_code == 404
    assert mesh.registry.reads == []


async def test_a_registry_that_is_away_is_a_clean_refusal(mesh: Harness) -> None:
    mesh.registry.away = True
    answer = await mesh.http.get(f"/v1/models/catalog/manifest/{BUILD}")

    assert answer.status_code == 503
