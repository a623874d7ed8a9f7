"""Making and rotating the keys of sealed requests."""

from pathlib import Path

import pytest
from darkbloom_edge.sealing_keys import make_key
from darkbloom_edge.signatures import to_base64
from darkbloom_gateway.mnemonics import private_key_of
from darkbloom_gateway.sealing_file import main
from darkbloom_gateway.sealing_ring import read_ring
from darkbloom_mesh.testing import EPOCH, FakeClock

ABANDON = "abandon " * 11 + "about"
LEGAL = "legal winner thank year wave sausage worth useful legal winner thank yellow"


@pytest.mark.parametrize(
    ("words", "public", "kid"),
    [
        (ABANDON, "LlrlPfsDzmMf7orE/cMuD1TI2D2EuE1qt7p7rhcvjRw=", "96293a4d0473cb36"),
        (LEGAL, "EGuzqxzUdekfp56gzvml+4CRmzMKITeFNkUSFtijClI=", "ac7a02b2227d17d4"),
        (f"\n {LEGAL.replace(' ', '  ')}\n", "EGuzqxzUdekfp56gzvml+4CRmzMKITeFNkUSFtijClI=", None),
    ],
)
def test_words_give_the_key_of_the_published_rule(words: str, public: str, kid: str | None) -> None:
    key = make_key(private_key_of(words), EPOCH)
    assert to_base64(key.pair.public) == public
    assert kid in (None, key.kid)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "abandon",
        "abandon " * 12,
        "abandon " * 11 + "abaut",
        "abandon " * 14 + "about",
        ABANDON.upper(),
    ],
)
def test_words_that_are_no_mnemonic_are_refused_and_not_quoted(words: str) -> None:
    with pytest.raises(ValueError, match="mnemonic") as raised:
        private_key_of(words)
    assert "aba" not in str(raised.value).lower()


def test_another_info_gives_another_key() -> None:
    assert private_key_of(LEGAL, "next") != private_key_of(LEGAL)


def test_a_file_is_made_and_rotated_and_no_secret_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, clock = tmp_path / "keys", FakeClock()
    assert main([str(path)], clock, lambda size: b"\x01" * size) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    clock.jump(86_400)
    assert main([str(path), "--lead", "30"], clock, lambda size: b"\x02" * size) == 0

    old, new = read_ring(path).keys
    assert old.until is not None
    assert (old.until - new.since).total_seconds() == 900
    assert (new.since - clock.now()).total_seconds() == 30
    said = capsys.readouterr().out
    assert new.kid in said
    assert to_base64(b"\x02" * 32) not in said
    assert [one.name for one in tmp_path.iterdir()] == ["keys"]


def test_words_from_a_file_make_the_key(tmp_path: Path) -> None:
    (tmp_path / "words").write_text(ABANDON)
    arguments = [str(tmp_path / "keys"), "--mnemonic-file", str(tmp_path / "words")]
    assert main(arguments, FakeClock()) == 0
    assert read_ring(tmp_path / "keys").keys[0].kid == "96293a4d0473cb36"


def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken").write_text("not keys")
    (tmp_path / "words").write_text("one two")
    keys = str(tmp_path / "keys")
    wrong = [
        [str(tmp_path / "broken")],
        [keys, "--grace", "60"],
        [keys, "--mnemonic-file", str(tmp_path / "words")],
        [keys, "--mnemonic-file", str(tmp_path / "absent")],
        [str(tmp_path / "absent" / "keys")],
    ]
    for arguments in wrong:
        assert main(arguments, FakeClock()) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert (tmp_path / "broken").read_text() == "not keys"
