import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from darkbloom_attestation.keyring import KeyDirectoryError, load_keyring
from darkbloom_edge.signatures import Ed25519Signer, to_base64

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def write(directory: Path, stamp: str, *, public: bool = False, mode: int = 0o600) -> Ed25519Signer:
    signer = Ed25519Signer.generate()
    path = directory / f"{stamp}.{'pub' if public else 'key'}"
    path.write_text(to_base64(signer.public if public else signer.private_bytes()) + "\n")
    path.chmod(mode)
    return signer


def test_development_makes_the_first_key_and_keeps_it(tmp_path: Path) -> None:
    directory = tmp_path / "keys" / "attestation"
    first = load_keyring(directory, now=NOW, create=True)
    again = load_keyring(directory, now=NOW + timedelta(days=1), create=True)

    assert first.signer.key_id == again.signer.key_id
    (file,) = directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_production_never_makes_a_key(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(KeyDirectoryError):
            load_keyring(directory, now=NOW, create=False)
    assert not list(tmp_path.iterdir())


def test_the_newest_key_signs_and_all_are_published(tmp_path: Path) -> None:
    gone = write(tmp_path, "20260101T000000Z", public=True, mode=0o644)
    old = write(tmp_path, "20260201T000000Z")
    new = write(tmp_path, "20260301T000000Z")
    (tmp_path / "notes.txt").write_text("not a key")
    ring = load_keyring(tmp_path, now=NOW, create=False)

    assert ring.signer.key_id == new.key_id
    assert [key.key_id for key in ring.published] == [gone.key_id, old.key_id, new.key_id]
    assert ring.published[0].retire_time == ring.published[1].create_time
    assert ring.published[2].retire_time is None


def test_a_newest_key_without_its_private_half_signs_nothing(tmp_path: Path) -> None:
    write(tmp_path, "20260101T000000Z")
    write(tmp_path, "20260201T000000Z", public=True)
    with pytest.raises(KeyDirectoryError, match="no private half"):
        load_keyring(tmp_path, now=NOW, create=False)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path, "20260101T000000Z", mode=mode)
    with pytest.raises(KeyDirectoryError, match="0600"):
        load_keyring(tmp_path, now=NOW, create=False)


@pytest.mark.parametrize("content", ["", "!!!", "AAAA", "\xff" * 9, "A" * 5000])
def test_a_file_that_is_no_key_is_refused_without_its_content(tmp_path: Path, content: str) -> None:
    path = tmp_path / "20260101T000000Z.key"
    path.write_text(content, "latin-1")
    path.chmod(0o600)
    with pytest.raises(KeyDirectoryError) as caught:
        load_keyring(tmp_path, now=NOW, create=False)
    assert "AAAA" not in str(caught.value)


@pytest.mark.parametrize("stamp", ["20270101T000000Z", "20260231T000000Z"])
def test_a_time_that_cannot_be_is_refused(tmp_path: Path, stamp: str) -> None:
    write(tmp_path, stamp)
    with pytest.raises(KeyDirectoryError):
        load_keyring(tmp_path, now=NOW, create=False)


def test_no_repr_shows_a_private_key(tmp_path: Path) -> None:
    signer = write(tmp_path, "20260101T000000Z")
    ring = load_keyring(tmp_path, now=NOW, create=False)
    assert to_base64(signer.private_bytes()) not in repr(ring)
    assert repr(signer.private_bytes()) not in repr(ring)
