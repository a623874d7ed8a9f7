"""Who may call what: each method has one row, and each room may call what its code calls."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
from darkbloom_mesh.callers import MATRIX, OPERATOR, flat

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos" / "darkbloom"
ROWS = flat(MATRIX)
CALLING = ("gateway", "router", "billing", "attestation", "registry")


def methods() -> set[str]:
    found = set()
    for path in PROTOS.glob("*/v1/*_service.proto"):
        room = path.parts[-3]
        module = import_module(f"darkbloom.{room}.v1.{path.stem}_pb2")
        for service in module.DESCRIPTOR.services_by_name.values():
            found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return found


def called_by(room: str) -> set[str]:
    """Return which methods' names the code of a room takes from an object; commands excepted."""
    names = {name.rpartition("/")[2] for name in ROWS} - {"Connect"}
    found = set()
    for path in (ROOT / "services" / room).rglob("*.py"):
        if "cli" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in names and stub(node.value):
                found.add(node.attr)
    return found


def stub(value: ast.expr) -> bool:
    """Tell `self._stub.Hold` and `stub.Hold` from a class in a module, `model.Hold`."""
    return isinstance(value, ast.Attribute) or ast.unparse(value).endswith("stub")


def test_each_method_of_the_contract_has_one_row_and_no_other_has() -> None:
    reflection = {name for name in ROWS if name.startswith("/grpc.reflection.")}
    assert set(ROWS) - reflection == methods(), (
        "give each new method its callers in services/mesh/darkbloom_mesh/callers.py"
    )


@pytest.mark.parametrize("room", CALLING)
def test_a_room_may_call_what_its_code_calls(room: str) -> None:
    allowed = {name.rpartition("/")[2] for name, callers in ROWS.items() if room in callers}
    assert called_by(room) <= allowed, f"services/mesh/darkbloom_mesh/callers.py, for {room}"


def test_the_scan_finds_calls() -> None:
    assert {"Hold", "ResolveKey", "WatchCatalog"} <= called_by("gateway")
    assert "SettleHolds" in called_by("router")


def test_money_moves_for_the_rooms_that_move_it_only() -> None:
    ledger = "/darkbloom.billing.v1.LedgerService"
    assert ROWS[f"{ledger}/Hold"] == {"gateway"}
    assert ROWS[f"{ledger}/SettleHolds"] == {"router"}
    assert ROWS["/darkbloom.billing.v1.AccountService/Grant"] == {OPERATOR}


def test_nobody_inside_calls_the_providers_own_listener() -> None:
    assert ROWS["/darkbloom.router.v1.ProviderLinkService/Connect"] == frozenset()


@pytest.mark.parametrize(
    "matrix",
    [
        {"a.B": {"gateway": "Call", "router": "Call"}},
        {"a.B": {"gatway": "Call"}},
    ],
    ids=["twice", "no room"],
)
def test_a_wrong_row_is_refused(matrix: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"a row of /a[.]B/Call is wrong"):
        flat(matrix)
