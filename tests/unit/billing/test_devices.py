"""User codes, issuer files: what people and operators write."""

import json
from pathlib import Path
from typing import Any

import pytest
from darkbloom_billing.identity.convert import machine_name
from darkbloom_billing.identity.devices import make_user_code, read_user_code
from darkbloom_billing.identity.settings import read_issuers
from hypothesis import given
from hypothesis import strategies as st

GOOD = {
    "issuer": "https://id.example",
    "audience": "darkbloom",
    "jwks_url": "https://id.example/keys",
    "algorithms": ["ES256", "RS256"],
}


@given(st.binary(min_size=8, max_size=8))
def test_a_code_reads_back_however_it_is_typed(entropy: bytes) -> None:
    code = make_user_code(entropy)

    assert not set(code) & set("0O1IL")
    for typed in (code, code.lower(), code.replace("-", ""), f" {code[:2]} {code[2:]}\t"):
        assert read_user_code(typed) == code


@given(st.text())
def test_any_text_is_a_code_or_none(text: str) -> None:
    found = read_user_code(text)
    assert found is None or len(found) == 9


def test_a_machines_name_is_shown_on_one_line() -> None:
    assert machine_name("a\nb\x1b[2J  c") == "a b [2J c"
    assert len(machine_name("x" * 1000)) == 80


def test_an_issuer_is_read_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "issuers.json"
    file.write_text(json.dumps([GOOD]))

    (issuer,) = read_issuers(file, development=False)
    assert (issuer.issuer, issuer.audience) == (GOOD["issuer"], GOOD["audience"])
    assert issuer.algorithms == {"ES256", "RS256"}


@pytest.mark.parametrize(
    "content",
    [
        {},
        [[]],
        [{**GOOD, "more": 1}],
        [{**GOOD, "issuer": ""}],
        [{**GOOD, "audience": 7}],
        [{**GOOD, "algorithms": []}],
        [{**GOOD, "algorithms": ["HS256"]}],
        [{**GOOD, "algorithms": ["none"]}],
        [{**GOOD, "algorithms": "ES256"}],
        [{**GOOD, "jwks_url": "http://id.example/keys"}],
        [{**GOOD, "jwks_url": "http://127.0.0.1/keys"}],
        [{**GOOD, "jwks_url": "file:///etc/passwd"}],
        [GOOD, GOOD],
        [GOOD] * 17,
    ],
)
def test_an_issuer_that_is_not_wholly_pinned_stops_the_start(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "issuers.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"\w"):
        read_issuers(file, development=False)


def test_only_development_may_read_keys_without_tls_and_only_from_here(tmp_path: Path) -> None:
    file = tmp_path / "issuers.json"
    file.write_text(json.dumps([{**GOOD, "jwks_url": "http://127.0.0.1:1/keys"}]))
    assert read_issuers(file, development=True)

    file.write_text(json.dumps([{**GOOD, "jwks_url": "http://id.example/keys"}]))
    with pytest.raises(ValueError, match="https"):
        read_issuers(file, development=True)
    with pytest.raises(ValueError, match="cannot be read"):
        read_issuers(tmp_path / "absent.json", development=True)
