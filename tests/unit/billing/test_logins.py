"""What a login token must be, and everything that it must not."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from darkbloom_billing.identity.errors import LoginInvalidError
from darkbloom_billing.identity.issuers import IssuerKeys
from darkbloom_billing.identity.model import Claims, Issuer
from darkbloom_billing.identity.oidc import MAX_TOKEN_BYTES, is_listed, read_head, read_keys, verify
from darkbloom_billing.identity.ports import FetchError
from darkbloom_mesh.errors import UnavailableError
from darkbloom_mesh.testing import FakeClock
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AT = int(NOW.timestamp())
ISSUER = Issuer(
    issuer="https://id.example",
    audience="darkbloom",
    jwks_url="https://id.example/keys",
    algorithms=frozenset({"ES256", "RS256", "EdDSA"}),
)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER_EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what must be refused
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    algorithms: dict[type, Any] = {
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    kind = next(found for base, found in algorithms.items() if isinstance(key, base))
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": kid, **more}


SET = [jwk(EC, "ec"), jwk(RSA, "rsa"), jwk(ED, "ed")]


class Source:
    """Publishes what a test says, counts, and can be away."""

    def __init__(self, keys: list[dict[str, Any]] | None = None) -> None:
        self.keys = SET if keys is None else keys
        self.away = False
        self.asked = 0

    async def fetch(self, url: str) -> bytes:
        assert url == ISSUER.jwks_url
        self.asked += 1
        if self.away:
            raise FetchError("away")
        return json.dumps({"keys": self.keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    body = {
        "iss": ISSUER.issuer,
        "aud": ISSUER.audience,
        "sub": "person-1",
        "email": "Ann@Example.org",
        "email_verified": True,
        "iat": AT,
        "exp": AT + 600,
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


def token(key: Any = EC, algorithm: str = "ES256", kid: str = "ec", **changes: Any) -> str:
    headers = changes.pop("headers", {})
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid, **headers})


async def check(presented: str, source: Source | None = None, issuer: Issuer = ISSUER) -> Claims:
    keys = IssuerKeys([issuer], source or Source(), FakeClock(NOW))
    found, key = await keys.find(read_head(presented))
    return verify(presented, key, found, now=NOW)


def part(content: Mapping[str, Any] | bytes) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(EC, "ES256", "ec"), (RSA, "RS256", "rsa"), (ED, "EdDSA", "ed")]
)
async def test_each_accepted_algorithm_signs_in(key: Any, algorithm: str, kid: str) -> None:
    found = await check(token(key, algorithm, kid))

    assert (found.issuer, found.subject) == (ISSUER.issuer, "person-1")
    assert (found.email, found.email_verified) == ("ann@example.org", True)
    assert found.expires_at == NOW + timedelta(seconds=600)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"aud": None},
        {"aud": ["another", "third"]},
        {"iss": "https://evil.example"},
        {"iss": "https://id.example/"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": "a\nb"},
        {"exp": None},
        {"exp": AT - 60},
        {"exp": AT + 8 * 86_400},
        {"nbf": AT + 61},
        {"iat": AT + 61},
        {"exp": "soon"},
    ],
)
async def test_a_claim_that_is_wrong_is_refused(changes: dict[str, Any]) -> None:
    body = part(claims(**changes))
    head = part({"alg": "ES256", "kid": "ec", "typ": "JWT"})
    signer = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256)
    presented = f"{head}.{body}.{part(signer.sign(f'{head}.{body}'.encode(), EC))}"

    with pytest.raises(LoginInvalidError):
        await check(presented)


@pytest.mark.parametrize("changes", [{"exp": AT - 59}, {"nbf": AT + 59}, {"iat": AT + 59}])
async def test_a_minute_of_skew_is_forgiven(changes: dict[str, Any]) -> None:
    assert (await check(token(**changes))).subject == "person-1"


async def test_one_of_several_audiences_is_enough() -> None:
    assert (await check(token(aud=["another", "darkbloom"]))).subject == "person-1"


async def test_no_algorithm_at_all_is_refused() -> None:
    for name in ("none", "None", "NONE", ""):
        presented = f"{part({'alg': name, 'kid': 'ec'})}.{part(claims())}.{part(b'x')}"
        with pytest.raises(LoginInvalidError):
            await check(presented)
    with pytest.raises(LoginInvalidError):
        await check(jwt.encode(claims(), None, "none"))


async def test_an_hmac_under_a_public_key_is_refused() -> None:
    for key, kid in ((EC, "ec"), (RSA, "rsa")):
        pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        signed = f"{part({'alg': 'HS256', 'kid': kid})}.{part(claims())}"
        mac = hmac.digest(pem, signed.encode(), hashlib.sha256)
        with pytest.raises(LoginInvalidError):
            await check(f"{signed}.{part(mac)}")


async def test_a_key_is_used_with_its_own_algorithm_only() -> None:
    # The header says RS256, the key that it names is of another kind.
    presented = token(RSA, "RS256", "ec")
    with pytest.raises(LoginInvalidError):
        await check(presented)


async def test_an_algorithm_that_is_not_pinned_for_the_issuer_is_refused() -> None:
    narrow = Issuer(
        issuer=ISSUER.issuer,
        audience=ISSUER.audience,
        jwks_url=ISSUER.jwks_url,
        algorithms=frozenset({"RS256"}),
    )
    with pytest.raises(LoginInvalidError):
        await check(token(), issuer=narrow)
    assert await check(token(RSA, "RS256", "rsa"), issuer=narrow)


async def test_a_stranger_who_names_our_key_is_refused() -> None:
    with pytest.raises(LoginInvalidError):
        await check(token(OTHER_EC))


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit", "b64"])
async def test_a_token_that_brings_its_own_key_is_refused(name: str) -> None:
    value: Any = {"jwk": jwk(OTHER_EC, "ec"), "crit": ["exp"], "b64": False}.get(name, "https://e")
    head = {"alg": "ES256", "kid": "ec", name: value}
    with pytest.raises(LoginInvalidError):
        read_head(f"{part(head)}.{part(claims())}.{part(b'x')}")


async def test_a_changed_byte_is_noticed() -> None:
    head, body, signature = token().split(".")
    forged = part(claims(sub="person-2"))
    # The first letter: all of its six bits are of the signature, as those of the last are not.
    changed = ("B" if signature[0] == "A" else "A") + signature[1:]
    for presented in (f"{head}.{forged}.{signature}", f"{head}.{body}.{changed}"):
        with pytest.raises(LoginInvalidError):
            await check(presented)


async def test_keys_that_are_not_for_us_are_left_out() -> None:
    listed = [
        jwk(EC, "encrypts", use="enc"),
        jwk(EC, "lies", alg="RS256"),
        jwk(WEAK_RSA, "weak"),
        {"kty": "oct", "k": part(b"k" * 32), "kid": "oct"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "broken"},
        {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC)), "kid": "private"},
        {"kid": 7},
        jwk(EC, "good"),
    ]
    assert list(read_keys(json.dumps({"keys": listed}).encode())) == ["good"]
    many = [jwk(EC, f"k{number}") for number in range(100)]
    assert len(read_keys(json.dumps({"keys": many}).encode())) == 64
    for wrong in (b"", b"[]", b"{}", b'{"keys":{}}', b"\xff", b"[" * 100_000):
        with pytest.raises(ValueError, match="not a jwk set"):
            read_keys(wrong)


@pytest.mark.parametrize(
    "presented",
    [
        "",
        "eyJ",
        "a.b",
        "a.b.c.d",
        "..",
        "eyJ.eyJ.eyJ",
        f"{part(b'[]')}.{part(b'{}')}.{part(b'x')}",
        f"{part(b'[' * 5000)}.{part(b'{}')}.{part(b'x')}",
        "e" * (MAX_TOKEN_BYTES + 1),
        f"{part({'alg': 'ES256', 'typ': 'JWE'})}.{part({'iss': 'x'})}.{part(b'x')}",
        f"{part({'alg': 7})}.{part({'iss': 'x'})}.{part(b'x')}",
        f"{part({'alg': 'ES256', 'kid': 7})}.{part({'iss': 'x'})}.{part(b'x')}",
    ],
)
async def test_what_is_no_token_is_refused(presented: str) -> None:
    with pytest.raises(LoginInvalidError):
        read_head(presented)


@given(st.text(max_size=200))
def test_any_text_is_a_head_or_a_refusal(text: str) -> None:
    try:
        read_head(text)
    except LoginInvalidError:
        return


def test_an_administrator_is_who_the_issuer_vouches_for() -> None:
    def said(email: str, *, verified: bool) -> Claims:
        return Claims(issuer="i", subject="s", email=email, email_verified=verified, expires_at=NOW)

    assert is_listed(said("root@example.org", verified=True), ["Root@Example.org"])
    assert not is_listed(said("root@example.org", verified=False), ["root@example.org"])
    assert not is_listed(said("ann@example.org", verified=True), ["root@example.org"])
    assert not is_listed(said("", verified=True), ["root@example.org"])


async def test_a_word_instead_of_true_does_not_verify_an_email() -> None:
    assert not (await check(token(email_verified="true"))).email_verified
    assert not (await check(token(email=None))).email_verified


async def test_a_new_key_is_found_and_an_old_one_is_forgotten() -> None:
    clock, source = FakeClock(NOW), Source([jwk(EC, "old")])
    keys = IssuerKeys([ISSUER], source, clock)
    old, new = read_head(token(kid="old")), read_head(token(OTHER_EC, kid="new"))
    await keys.find(old)
    source.keys = [jwk(OTHER_EC, "new")]

    with pytest.raises(LoginInvalidError):
        await keys.find(new)
    clock.jump(30)
    assert (await keys.find(new))[1].key_id == "new"
    with pytest.raises(LoginInvalidError):
        await keys.find(old)


async def test_made_up_key_ids_do_not_make_us_ask_again_and_again() -> None:
    clock, source = FakeClock(NOW), Source()
    keys = IssuerKeys([ISSUER], source, clock)
    for number in range(50):
        with pytest.raises(LoginInvalidError):
            await keys.find(read_head(token(kid=f"guess-{number}")))
    assert source.asked == 1


async def test_known_keys_serve_on_while_their_issuer_is_away_but_not_for_ever() -> None:
    clock, source = FakeClock(NOW), Source()
    keys = IssuerKeys([ISSUER], source, clock)
    head = read_head(token())
    await keys.find(head)
    source.away = True
    for _ in range(10):
        clock.jump(3600)
        assert (await keys.find(head))[1].key_id == "ec"
    clock.jump(86_400)
    with pytest.raises(UnavailableError):
        await keys.find(head)


async def test_an_issuer_that_is_away_is_asked_at_doubling_distances() -> None:
    clock, source = FakeClock(NOW), Source()
    source.away = True
    keys = IssuerKeys([ISSUER], source, clock)
    head = read_head(token())
    for _ in range(100):
        with pytest.raises(UnavailableError):
            await keys.find(head)
        clock.jump(0.5)
    assert source.asked <= 7

    source.away = False
    clock.jump(60)
    assert (await keys.find(head))[1].key_id == "ec"
