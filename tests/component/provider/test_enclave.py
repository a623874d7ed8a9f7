"""The Secure Enclave key, up to the system call: real ctypes against two libraries in small."""

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from darkbloom_edge.signatures import P256Signer, verify_p256, verify_p256_raw
from darkbloom_provider.mac.cache_key import EnclaveVault
from darkbloom_provider.mac.errors import EnclaveError
from darkbloom_provider.mac.frameworks import Frameworks
from darkbloom_provider.mac.secure_enclave import MISSING_ENTITLEMENT, EnclaveKey, open_enclave_key

pytestmark = pytest.mark.tool("cc")

GROUP = "TEAM123456.io.darkbloom.provider"
SOURCE = Path(__file__).parents[2] / "fakes" / "apple_frameworks.c"
SIGN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p)
KEYCHAIN_REFERENCES = 1
"""What stays alive: the key that the keychain holds."""


class FakeMac:
    """The libraries, their switches, and the curve behind them."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library: Any = library
        self.signer = P256Signer.generate()
        self.seen: list[bytes] = []
        self.answer: bytes | None = None
        self._callback = SIGN(self._sign)
        library.fake_reset()
        library.fake_signer(self._callback)
        library.fake_point(self.signer.public)

    def frameworks(self) -> Frameworks:
        return Frameworks(self.library, self.library)

    def open(self) -> EnclaveKey:
        return open_enclave_key(self.frameworks(), GROUP)

    def refuse(self, step: int, code: int = -1) -> None:
        self.library.fake_refuse(step, code)

    @property
    def live(self) -> int:
        return int(self.library.fake_live())

    @property
    def misuse(self) -> int:
        return int(self.library.fake_misuse())

    def _sign(self, data: int, size: int, out: int) -> int:
        message = ctypes.string_at(data, size)
        self.seen.append(message)
        signature = self.signer.sign_raw(message) if self.answer is None else self.answer
        ctypes.memmove(out, signature, len(signature))
        return len(signature)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    made = tmp_path_factory.mktemp("frameworks") / "frameworks.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", str(made), str(SOURCE)], check=True, timeout=60
    )
    return ctypes.CDLL(str(made))


@pytest.fixture
def mac(library: ctypes.CDLL) -> Iterator[FakeMac]:
    running = FakeMac(library)
    yield running
    assert running.misuse == 0


def test_a_key_is_made_once_and_found_again(mac: FakeMac) -> None:
    first = mac.open()
    assert first.public == mac.signer.public
    assert first.secure_enclave
    first.close()
    assert mac.live == KEYCHAIN_REFERENCES
    second = mac.open()
    assert second.public == first.public
    second.close()
    second.close()
    assert mac.live == KEYCHAIN_REFERENCES


def test_it_signs_what_the_software_key_would_sign(mac: FakeMac) -> None:
    key = mac.open()
    verify_p256_raw(key.public, b"data", key.sign_raw(b"data"))
    verify_p256(key.public, "terminal", b"{}", key.sign("terminal", b"{}"))
    assert mac.seen == [b"data", b"darkbloom:terminal:v1\x00{}"]
    key.close()


def test_nothing_is_leaked_by_a_thousand_signatures(mac: FakeMac) -> None:
    key = mac.open()
    before = mac.live
    for _ in range(1000):
        key.sign_raw(b"x")
    assert mac.live == before
    key.close()


@pytest.mark.parametrize(
    ("step", "what"),
    [
        (1, "looking for the key"),
        (2, "access control"),
        (3, "making a key"),
        (4, "reading the public key"),
        (5, "reading the public key"),
    ],
)
def test_a_refusal_names_its_step_and_leaks_nothing(mac: FakeMac, step: int, what: str) -> None:
    mac.refuse(step, -67_000)
    with pytest.raises(EnclaveError) as refused:
        mac.open()
    assert refused.value.step == what
    assert mac.live == (KEYCHAIN_REFERENCES if step > 3 else 0)
    if step in (1, 2, 3, 5):
        assert refused.value.code == -67_000


def test_a_program_of_another_team_gets_no_key(mac: FakeMac) -> None:
    mac.library.fake_entitled(0)
    with pytest.raises(EnclaveError) as refused:
        mac.open()
    assert refused.value.code == MISSING_ENTITLEMENT


def test_a_refused_or_broken_signature_is_an_error(mac: FakeMac) -> None:
    key = mac.open()
    before = mac.live
    mac.refuse(6, -4)
    with pytest.raises(EnclaveError):
        key.sign_raw(b"x")
    mac.refuse(0)
    for broken in (b"", b"\x30\x00", b"\x00" * 72):
        mac.answer = broken
        with pytest.raises(EnclaveError):
            key.sign_raw(b"x")
    assert mac.live == before
    key.close()


def test_a_public_key_that_is_none_is_an_error(mac: FakeMac) -> None:
    mac.library.fake_point(b"\x04" + bytes(64))
    with pytest.raises(EnclaveError):
        mac.open()
    assert mac.live == KEYCHAIN_REFERENCES


def test_a_constant_that_the_system_does_not_know_is_an_error(mac: FakeMac) -> None:
    with pytest.raises(EnclaveError):
        mac.frameworks().constant("kSecNoSuchThing")


@pytest.mark.skipif(sys.platform == "darwin", reason="there it loads")
def test_off_a_mac_there_is_no_enclave() -> None:
    with pytest.raises(EnclaveError):
        Frameworks.load()


# The root key of the prefix cache.


def vault(mac: FakeMac, path: Path) -> EnclaveVault:
    return EnclaveVault(path, mac.frameworks, GROUP)


def test_the_cache_key_is_made_once_and_lies_on_the_disk_only_wrapped(
    mac: FakeMac, tmp_path: Path
) -> None:
    path = tmp_path / "wrapped"
    root = vault(mac, path).root()
    assert len(root) == 32
    assert root not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert vault(mac, path).root() == root
    # Another key than the identity's: both are in the keychain now.
    mac.open().close()
    assert mac.live == 2 * KEYCHAIN_REFERENCES


def test_a_cache_key_that_is_forgotten_is_another_one(mac: FakeMac, tmp_path: Path) -> None:
    path = tmp_path / "wrapped"
    root = vault(mac, path).root()
    vault(mac, path).forget()
    assert not path.exists()
    assert vault(mac, path).root() != root


@pytest.mark.parametrize("step", [1, 3, 7])
def test_without_the_enclave_there_is_no_cache_key(mac: FakeMac, tmp_path: Path, step: int) -> None:
    mac.refuse(step)
    with pytest.raises(OSError, match="the enclave refused"):
        vault(mac, tmp_path / "wrapped").root()
    assert not (tmp_path / "wrapped").exists()


def test_an_enclave_that_does_not_open_the_key_keeps_the_file_for_later(
    mac: FakeMac, tmp_path: Path
) -> None:
    path = tmp_path / "wrapped"
    root = vault(mac, path).root()
    mac.refuse(8)
    with pytest.raises(OSError, match="the enclave refused"):
        vault(mac, path).root()
    mac.refuse(0)
    assert vault(mac, path).root() == root


def test_a_cache_key_that_others_can_read_is_refused(mac: FakeMac, tmp_path: Path) -> None:
    path = tmp_path / "wrapped"
    vault(mac, path).root()
    path.chmod(0o644)
    with pytest.raises(PermissionError):
        vault(mac, path).root()
