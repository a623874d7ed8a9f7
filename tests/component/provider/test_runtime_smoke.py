"""`darkbloom runtime-smoke`: whether the engine loads and computes here, in one exit code."""

import json
import sys

import pytest

pytestmark = pytest.mark.engine


def test_a_device_that_computes_is_named_with_the_versions_in_text_and_json(cli):
    code, out, err = cli("runtime-smoke", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["device"] in {"cpu", "gpu"}
    assert set(said["versions"]) == {"mlx", "mlx-lm"}

    code, out, err = cli("runtime-smoke")
    assert (code, err) == (0, "")
    first, *versions = out.splitlines()
    assert first.startswith(said["device"])
    assert first.endswith("computes")
    assert versions == [f"{name} {version}" for name, version in said["versions"].items()]


@pytest.mark.parametrize(
    ("answer", "words"),
    [(None, "does not compute, no device"), ([[0.0]], "computes wrong numbers")],
    ids=["raises", "wrong"],
)
def test_a_device_that_fails_or_miscalculates_is_a_failure(cli, monkeypatch, answer, words):
    from darkbloom_provider.engine.mlx import smoke

    def multiply(_left: object, _right: object) -> list[list[float]]:
        if answer is None:
            raise RuntimeError("no device")
        return answer

    monkeypatch.setattr(smoke, "multiply", multiply)
    code, out, err = cli("runtime-smoke", "--json")
    assert (code, out) == (1, "")
    assert words in err
    assert "restart this machine" in err


def test_libraries_that_cannot_be_imported_are_a_failure_with_a_remedy(cli, monkeypatch):
    monkeypatch.delitem(sys.modules, "darkbloom_provider.engine.mlx.smoke", raising=False)
    monkeypatch.setitem(sys.modules, "darkbloom_provider.engine.mlx.loader", None)
    code, out, err = cli("runtime-smoke")
    assert (code, out) == (1, "")
    assert "cannot be loaded" in err
    assert "extra `mlx`" in err
