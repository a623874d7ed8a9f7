"""docs/operations/data-life.md names every table and rule of erasure that migrations make."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operations" / "data-life.md"
MIGRATIONS = sorted((ROOT / "services").glob("*/*/migrations/versions/*.sql"))
COLUMNS = 6
_NOTHING = "\N{EN DASH}"
_LEADS_NOWHERE = {"billing.uncounted", "billing.budget_funding"}
_TABLE = re.compile(r"CREATE TABLE ([a-z_]+\.[a-z_]+) \((.*?)\n\)", re.DOTALL)
# A table in which accounts appear, by the name of the column.
_ACCOUNT = re.compile(r"^\s+(?:owner_)?account_id text", re.MULTILINE)


def tables() -> dict[str, str]:
    """Every table by name, with its definition."""
    made: dict[str, str] = {}
    for path in MIGRATIONS:
        text = path.read_text()
        made |= dict(_TABLE.findall(text))
        for name in re.findall(r"DROP TABLE (?:IF EXISTS )?([a-z_]+\.[a-z_]+)", text):
            made.pop(name, None)
    return made


def rules() -> dict[str, str]:
    """Rules of erasure: name and table."""
    found: dict[str, str] = {}
    for path in MIGRATIONS:
        for block in re.findall(
            r"INSERT INTO billing\.erasure_rule VALUES(.*?);\n", path.read_text(), re.DOTALL
        ):
            for rule, relation in re.findall(r"\(\d+, '([a-z_]+)', '([a-z_]+)'", block):
                found[rule] = f"billing.{relation}"
    return found


def rows() -> dict[str, list[str]]:
    """The page: cells by table."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"`[a-z_]+\.[a-z_]+`", cells[0]):
            assert len(cells) == COLUMNS, line
            assert all(cells), line
            found[cells[0].strip("`")] = cells
    return found


def test_every_table_has_its_row_and_no_row_is_of_a_table_that_is_gone() -> None:
    assert len(tables()) > 80
    assert set(rows()) == set(tables())


def test_every_rule_of_erasure_is_named_at_its_table() -> None:
    page = rows()
    assert len(rules()) > 15
    for rule, table in rules().items():
        assert f"`{rule}`" in page[table][-1], (rule, table)


def test_what_is_personal_is_erased_or_says_why_not() -> None:
    for name, cells in rows().items():
        if cells[2] == "yes":
            assert cells[-1].startswith(("deleted", "blanked", "of staff")), name
        elif cells[2] == "by id":
            assert cells[-1] != _NOTHING or name in _LEADS_NOWHERE, name


def test_accounts_are_told_where_they_appear() -> None:
    page = rows()
    for name, body in tables().items():
        if _ACCOUNT.search(body):
            assert page[name][2] in {"yes", "by id"}, name
