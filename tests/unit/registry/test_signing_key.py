from pathlib import Path

import pytest
from darkbloom_registry.signing_key import SigningKeyError, read_signing_key


def test_a_key_is_made_once_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "manifest"

    first = read_signing_key(path, create=True)

    assert read_signing_key(path, create=False).key_id == first.key_id
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    read_signing_key(path, create=True)
    path.chmod(0o640)

    with pytest.raises(SigningKeyError, match="0600"):
        read_signing_key(path, create=False)


def test_what_is_no_key_is_refused_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("not a key\n")
    path.chmod(0o600)

    with pytest.raises(SigningKeyError, match="not an ed25519 key") as caught:
        read_signing_key(path, create=True)
    assert "not a key" not in str(caught.value)
    with pytest.raises(SigningKeyError, match="cannot be read"):
        read_signing_key(tmp_path / "none", create=False)
