"""Records of erasures outside the database: never overwritten, the last step counts."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from darkbloom_billing.admin.cli.main import cli as admin
from darkbloom_billing.admin.erasure_log import ErasureLog, ErasureRecord, Step
from darkbloom_billing.admin.erasure_proof import check, digest, statement
from darkbloom_billing.books.seal import exported, torn_heads
from darkbloom_mesh.errors import InvalidArgumentError
from typer.testing import CliRunner

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


@pytest.mark.parametrize("text", ["[]\n", "{}\n", '{"erasure_id": "erase_9"}\n'])
def test_what_is_no_record_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "erase_9.confirmed.json").write_text(text)
    with pytest.raises(InvalidArgumentError, match="no record"):
        ErasureLog(tmp_path).newest()


def test_a_torn_record_is_missing_until_it_is_written_again(tmp_path: Path) -> None:
    for left in ("", FIRST.text()[:20]):
        log = ErasureLog(tmp_path)
        (tmp_path / FIRST.name).write_text(left)
        assert (log.names(), log.newest()) == (frozenset(), [])
        assert log.unreadable() == (FIRST.name,)
        log.write(FIRST)
        assert (log.names(), log.newest(), log.unreadable()) == ({FIRST.name}, [FIRST], ())
    assert [path.name for path in tmp_path.iterdir()] == [FIRST.name]


@pytest.mark.parametrize("step", [Step.CANCELED, Step.ERASED])
def test_the_name_of_a_torn_record_says_how_far_an_erasure_got(tmp_path: Path, step: Step) -> None:
    log = ErasureLog(tmp_path)
    log.write(FIRST)
    (tmp_path / f"erase_1.{step}.json").write_text("")
    assert (log.newest(), log.unreadable()) == ([replace(FIRST, step=step)], ())


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        ErasureLog(tmp_path / "absent").names()


def test_a_torn_copy_of_a_head_is_named_and_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "block-0000000001.json").write_text("")
    (tmp_path / "block-0000000002.json").write_text('{"height": 2, "hash": "ab"}\n')
    assert exported(tmp_path) == {2: "ab"}
    assert torn_heads(tmp_path) == ("block-0000000001.json",)
    (tmp_path / "block-0000000003.json").write_text("[]\n")
    with pytest.raises(ValueError, match="no head"):
        exported(tmp_path)


def test_a_forged_proof_is_shown_as_one(tmp_path: Path) -> None:
    forged = tmp_path / "proof.json"
    for said in ({"proven": True, "problems": []}, ["proven"]):
        forged.write_text(json.dumps({"statement": said}))
        run = CliRunner().invoke(
            admin, ["--json", "erase", "verify", str(forged), "--heads", str(tmp_path)]
        )
        assert run.exit_code == 1
        assert json.loads(run.stdout) == {
            "proven": False,
            "problems": ["this is no proof of an erasure"],
        }


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
