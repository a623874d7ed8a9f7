"""`darkbloom-admin` as a process, over a running billing."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from darkbloom.billing.v1.operator_service_pb2 import ExportColumn, ExportHeader
from darkbloom_billing.admin.cli.exports import FORMATS, MismatchError, prove
from darkbloom_billing.admin.cli.main import arguments
from pyrage.x25519 import Identity

from tests.component.billing.operating import Staff, staff
from tests.component.billing.world import CONSUMER, PROVIDER, World, owner, world

PROGRAM = str(Path(sys.executable).with_name("darkbloom-admin"))


class Shell:
    """Runs commands as one operator."""

    def __init__(self, w: World, who: Any, directory: Path) -> None:
        token = directory / f"{who.token[-6:]}.token"
        token.write_text(who.token + "\n")
        self._environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - a shell for the child
            "DARKBLOOM_ADMIN_TARGET": w.service.listeners["grpc"],
            "DARKBLOOM_ADMIN_TOKEN_FILE": str(token),
            "COLUMNS": "160",
        }

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *words,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def json(self, *words: str) -> Any:
        code, out, err = await self(*words, "--json")
        assert code == 0, err
        return json.loads(out)


async def shells(w: World, directory: Path) -> tuple[Shell, Shell, Staff]:
    s = await staff(w)
    return Shell(w, s.alice, directory), Shell(w, s.bob, directory), s


async def test_a_first_day_of_two_operators(url: str, tmp_path: Path) -> None:
    async with world(url) as w:
        alice, bob, _ = await shells(w, tmp_path)
        await w.account(CONSUMER)
        for budget in ("capital", "promo"):
            proposed = await alice.json("budgets", "propose", budget, "--usd", "25.000001")
            funding = proposed["funding"]
            assert (funding["state"], funding["amount_micros"]) == ("proposed", 25_000_001)
            code, _, err = await alice("budgets", "approve", funding["funding_id"])
            assert (code, "second operator" in err) == (3, True)
            approved = await bob.json("budgets", "approve", funding["funding_id"])
            assert approved["funding"]["approved_by"] == "bob"

        dry = await alice.json("credit", CONSUMER, "--usd", "2.50", "--dry-run")
        assert (dry["dry_run"], dry["amount_micros"], "operator" in dry) == (True, 2_500_000, False)
        assert await w.balance(CONSUMER) == (0, 0, 0)
        for _ in range(2):
            paid = await alice.json("credit", CONSUMER, "--usd", "2.50", "--request-id", "once")
            assert paid["balance_micros"] == 2_500_000

        async with owner(w.url) as db:
            await db.execute(
                """INSERT INTO billing.app_user (user_id, issuer, subject, account_id, email,
                     email_verified, created_at)
                   VALUES ('user_1', 'https://id', 's', $1, 'ann@example.org', true, now())""",
                CONSUMER,
            )
        paid = await alice.json("reward", "ann@example.org", "--usd", "1")
        assert (paid["balance_micros"], paid["withdrawable_micros"]) == (3_500_000, 1_000_000)
        code, _, err = await alice("credit", "nobody@example.org", "--usd", "1")
        assert (code, "no such" in err) == (3, True)

        code, out, _ = await alice("accounts", "show", CONSUMER)
        assert (code, "$2.500000" in out, "$1.000000" in out) == (0, True, True)
        code, out, _ = await alice("audit", "actions", "--subject", CONSUMER)
        assert (code, "account.credit" in out, "alice" in out) == (0, True, True)
        report = await bob.json("audit", "run")
        assert report["violations"] == []


async def test_each_way_to_fail_has_its_code(url: str, tmp_path: Path) -> None:
    async with world(url) as w:
        alice, _, s = await shells(w, tmp_path)
        assert (await alice("accounts", "show", "acct_nobody"))[0] == 3
        assert (await alice("credit", CONSUMER, "--usd", "1.0000001"))[0] == 2
        code, out, err = await alice("accounts", "show", "acct_nobody", "--json")
        assert (code, out) == (3, "")
        assert json.loads(err)["error"]["reason"] == "NOT_FOUND"
        s.alice.token = "op-db-revoked"
        stranger = Shell(w, s.alice, tmp_path)
        assert (await stranger("accounts", "freeze", CONSUMER))[0] == 4
        service = w.service.listeners["grpc"]
        w.service.listeners["grpc"] = "127.0.0.1:1"
        assert (await Shell(w, s.bob, tmp_path)("accounts", "list"))[0] == 5
        w.service.listeners["grpc"] = service


@pytest.mark.parametrize("form", ["json", "parquet"])
async def test_an_export_is_read_again_and_adds_up(url: str, tmp_path: Path, form: str) -> None:
    async with world(url) as w:
        alice, _, _ = await shells(w, tmp_path)
        await w.people()
        for _ in range(2):
            (held,) = await w.hold(w.order())
            await w.settle(w.settlement(held.request_id))
        target = tmp_path / "books"
        shown = await alice.json("export", str(target), "--format", form)
        assert [file["table"] for file in shown["files"]] == [
            "account",
            "earning",
            "event",
            "transfer",
            "usage",
        ]
        sums = {file["table"]: file["sums"] for file in shown["files"]}
        assert sums["usage"]["charge_micros"] == sums["earning"]["amount_micros"] != "0"
        assert json.loads((target / "manifest.json").read_text())["files"] == shown["files"]
        if form == "parquet":
            table = pq.read_table(target / "usage.parquet")
            assert sum(table["charge_micros"].to_pylist()) == int(sums["usage"]["charge_micros"])
        code, _, _ = await alice("export", str(target), "--table", "users")
        assert code == 2


async def test_erasing_needs_the_token_of_the_plan(url: str, tmp_path: Path) -> None:
    async with world(url) as w:
        alice, bob, _ = await shells(w, tmp_path)
        await w.account(PROVIDER)
        planned = await alice.json("erase", "plan", PROVIDER)
        name = planned["erasure"]["erasure_id"]
        assert (await bob("erase", "confirm", name, "wrong"))[0] == 3
        dry = await bob.json("erase", "confirm", name, planned["confirm_token"], "--dry-run")
        assert planned["confirm_token"] not in json.dumps(dry)
        done = await bob.json("erase", "confirm", name, planned["confirm_token"], "--force")
        assert done["erasure"]["state"] == "erased"


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_file_that_does_not_add_up_is_removed(tmp_path: Path, form: str) -> None:
    header = ExportHeader(columns=[ExportColumn(name="a", type="int", sum="4")], rows=2)
    path = tmp_path / "t"
    file = FORMATS[form](path, header)
    file.write([[1], [2]])
    file.close()
    with pytest.raises(MismatchError):
        prove("t", file)
    assert not path.exists()


async def test_an_export_to_a_recipient_is_proven_by_whoever_can_read_it(
    url: str, tmp_path: Path
) -> None:
    me, target = Identity.generate(), tmp_path / "out"
    keys = tmp_path / "keys"
    keys.write_text(f"{me}\n")
    async with world(url) as w:
        alice, _, _ = await shells(w, tmp_path)
        await w.people()
        words = ("export", str(target), "--format", "json", "--recipient", str(me.to_public()))
        written = await alice.json(*words)
        assert {each["file"].rpartition(".")[2] for each in written["files"]} == {"age"}
        assert not any(CONSUMER.encode() in path.read_bytes() for path in target.glob("*.age"))
        found = await alice.json("verify", str(target), "--identity-file", str(keys))
        assert found["files"] == written["files"]


def test_json_may_stand_anywhere() -> None:
    assert arguments(["audit", "run", "--json"]) == ["--json", "audit", "run"]
    assert arguments(["audit", "run"]) == ["audit", "run"]
