"""Records of erasures outside the database: never overwritten, the last step counts."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from darkbloom_billing.admin.erasure_log import ErasureLog, ErasureRecord, Step
from darkbloom_billing.admin.erasure_proof import check, digest, statement
from darkbloom_mesh.errors import InvalidArgumentError

NOW = datetime(2026, 5, 1, tzinfo=UTC)
FIRST = ErasureRecord(
    erasure_id="erase_1",
    account_id="acct_ann",
    step=Step.CONFIRMED,
    forfeit=True,
    planned_at=NOW,
    scrub_after=NOW + timedelta(days=7),
)


def test_the_last_step_of_each_erasure_counts(tmp_path: Path) -> None:
    log = ErasureLog(tmp_path)
    older = replace(FIRST, erasure_id="erase_2", planned_at=NOW - timedelta(days=1))
    done = replace(FIRST, step=Step.ERASED, proof={"rules": {"users": 1}})
    for record in (done, FIRST, older, replace(older, step=Step.CANCELED)):
        log.write(record)
        log.write(record)
    assert log.newest() == [replace(older, step=Step.CANCELED), done]
    assert log.names() == {record.name for record in (FIRST, done, older, log.newest()[0])}


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    log = ErasureLog(tmp_path)
    log.write(FIRST)
    with pytest.raises(ValueError, match="says otherwise"):
        log.write(replace(FIRST, account_id="acct_bob"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"erasure_id": "erase_9"}'])
def test_what_is_no_record_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "erase_9.confirmed.json").write_text(text)
    with pytest.raises(InvalidArgumentError, match="no record"):
        ErasureLog(tmp_path).newest()


def test_a_record_under_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "erase_9.confirmed.json").write_text(FIRST.text())
    with pytest.raises(InvalidArgumentError, match="another erasure"):
        ErasureLog(tmp_path).newest()


def test_a_statement_has_one_digest_whatever_the_order_of_its_rules() -> None:
    first = statement("erase_1", "acct_ann", {"users": 1, "notes": 2}, 0, NOW)
    second = json.loads(
        json.dumps(statement("erase_1", "acct_ann", {"notes": 2, "users": 1}, 0, NOW))
    )
    assert digest(first) == digest(second) != digest({**first, "account_id": "acct_bob"})


@pytest.mark.parametrize("proof", [{}, {"statement": {}, "event": [], "block": {}}, {"event": 7}])
def test_what_is_no_proof_proves_nothing(proof: dict[str, object]) -> None:
    assert check(proof, {}) == ("this is no proof of an erasure",)
