"""Apple's attestation services in small: they mint what the real ones do, under other roots.

    apple = AppleService()
    key = apple.attest("TEAM.app", client_data_hash=challenge)
    verify_attestation(key.attestation, key_id=key.key_id, roots=apple.roots, now=NOW, ...)

Every field can be had wrong: hand in a changed recipe.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import cbor2
from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from darkbloom_edge.apple import AppleRoots, Environment
from darkbloom_edge.apple.authenticator import AAGUIDS, FLAG_ATTESTED, FLAG_EXTENSIONS
from darkbloom_edge.apple.extensions import (
    ACCESS_CONTROL,
    ACCESS_CONTROL_OID,
    NONCE_OID,
    NonceValue,
    TaggedPolicy,
)
from darkbloom_edge.apple.receipt import SIGNER_OID

from tests.fakes.apple_ca import NOW, Authority, Profile, der

MDA = "1.2.840.113635.100.8."
"""Arc of what a Mac says about itself."""
_ECDSA = ec.ECDSA(hashes.SHA256())
_AAGUID = {environment: aaguid for aaguid, environment in AAGUIDS.items()}


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def launch_facts(
    *,
    version: str | None = "1",
    category: int | None = 6,
    code_directory: bytes | None = bytes(32),
) -> dict[str, Any]:
    """Return the extensions that a Mac sends about the running app."""
    found: dict[str, Any] = {}
    if version is not None:
        found["apple_bundle_version_01"] = version
    if category is not None:
        found["apple_validation_category_01"] = category.to_bytes(4, "little")
    if code_directory is not None:
        found["apple_cd_hash_hash_01"] = code_directory
        found["apple_cd_hash_type_01"] = b"\x02"
    return found


@dataclass(frozen=True, kw_only=True)
class AuthenticatorRecipe:
    """What authenticator data say; None in a field of the credential derives it from the key."""

    app_id: str
    environment: Environment = Environment.PRODUCTION
    flags: int | None = None
    counter: int = 0
    aaguid: bytes | None = None
    credential_id: bytes | None = None
    cose: Mapping[Any, Any] | None = None
    extensions: Mapping[str, Any] | None = None
    tail: bytes = b""

    def build(self, key_point: bytes | None) -> bytes:
        """Return the bytes; without a key they are those of an assertion."""
        flags = self.flags
        if flags is None:
            flags = (0 if key_point is None else FLAG_ATTESTED) | (
                0 if self.extensions is None else FLAG_EXTENSIONS
            )
        head = hashlib.sha256(self.app_id.encode()).digest() + bytes([flags])
        extensions = b"" if self.extensions is None else cbor2.dumps(dict(self.extensions))
        return (
            head
            + self.counter.to_bytes(4, "big")
            + (b"" if key_point is None else self._credential(key_point))
            + extensions
            + self.tail
        )

    def _credential(self, key_point: bytes) -> bytes:
        aaguid = _AAGUID[self.environment] if self.aaguid is None else self.aaguid
        identifier = self.credential_id
        if identifier is None:
            identifier = hashlib.sha256(key_point).digest()
        cose = self.cose
        if cose is None:
            cose = {1: 2, 3: -7, -1: 1, -2: key_point[1:33], -3: key_point[33:]}
        return aaguid + len(identifier).to_bytes(2, "big") + identifier + cbor2.dumps(dict(cose))


@dataclass(frozen=True)
class MintedKey:
    """A key with its attestation, and the private half that signs assertions."""

    private: ec.EllipticCurvePrivateKey
    app_id: str
    environment: Environment
    client_data_hash: bytes
    authenticator_data: bytes
    chain: tuple[x509.Certificate, ...]
    receipt: bytes
    attestation: bytes

    @property
    def public_key(self) -> bytes:
        return point(self.private)

    @property
    def key_id(self) -> str:
        return base64.b64encode(hashlib.sha256(self.public_key).digest()).decode()

    @property
    def leaf(self) -> bytes:
        return self.chain[0].public_bytes(Encoding.DER)

    def assertion(
        self,
        client_data_hash: bytes,
        *,
        counter: int = 1,
        extensions: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> bytes:
        """Sign something with the attested key."""
        recipe = AuthenticatorRecipe(
            app_id=self.app_id, counter=counter, extensions=extensions, **changes
        )
        data = recipe.build(None)
        nonce = hashlib.sha256(data + client_data_hash).digest()
        signature = self.private.sign(nonce, _ECDSA)
        return cbor2.dumps({"signature": signature, "authenticatorData": data})


@dataclass(frozen=True, kw_only=True)
class ReceiptRecipe:
    """A receipt, field by field."""

    fields: Mapping[int, bytes]
    signer: Profile = field(
        default_factory=lambda: Profile(
            not_before=NOW - timedelta(days=300),
            not_after=NOW + timedelta(days=300),
            extensions=((SIGNER_OID.dotted_string, b"\x05\x00", False),),
        )
    )
    versions: Mapping[int, int] = field(default_factory=dict)
    signed_attributes: bool = False
    extra_certificates: tuple[x509.Certificate, ...] = ()
    signers: int = 1
    digest: str = "sha256"


def stamp(at: datetime) -> bytes:
    return at.strftime("%Y-%m-%dT%H:%M:%S.").encode() + b"%03dZ" % (at.microsecond // 1000)


class AppleService:
    """Three roots, the authorities below them, and everything that these sign."""

    def __init__(self) -> None:
        self.app_attest_root = Authority.root("Apple App Attestation Root CA")
        self.app_attest = self.app_attest_root.authority("Apple App Attestation CA 1")
        self.enterprise_root = Authority.root("Apple Enterprise Attestation Root CA")
        self.enterprise = self.enterprise_root.authority("Apple Enterprise Attestation Sub CA 1")
        self.receipt_root = Authority.root("Apple Root CA - G3")
        self.receipts = self.receipt_root.authority("Apple Application Integration CA 5 - G1")

    @property
    def roots(self) -> AppleRoots:
        return AppleRoots(
            app_attest=self.app_attest_root.certificate,
            enterprise=self.enterprise_root.certificate,
            receipts=self.receipt_root.certificate,
        )

    def attest(
        self,
        app_id: str,
        *,
        client_data_hash: bytes,
        key: ec.EllipticCurvePrivateKey | None = None,
        environment: Environment = Environment.PRODUCTION,
        mac: bool = True,
        launch: Mapping[str, Any] | None = None,
        at: datetime = NOW,
        recipe: AuthenticatorRecipe | None = None,
        profile: Profile | None = None,
        nonce: bytes | None = None,
        receipt: bytes | None = None,
    ) -> MintedKey:
        """Attest a key of an app.

        Args:
            app_id: `<TeamID>.<bundle id>`.
            client_data_hash: what goes into the nonce.
            key: the app's key; a new one without it.
            environment: of the service.
            mac: whether the leaf carries a Mac's access policy.
            launch: extensions; without them a Mac's are `launch_facts()`, a phone sends none.
            at: the middle of the leaf's three days, and the receipt's time.
            recipe: replaces all of the authenticator data.
            profile: replaces all of the leaf but its nonce and access policy.
            nonce: replaces the right one.
            receipt: replaces the right one.
        """
        private = key or new_key()
        if launch is None and mac:
            launch = launch_facts()
        data = (
            recipe or AuthenticatorRecipe(app_id=app_id, environment=environment, extensions=launch)
        ).build(point(private))
        if nonce is None:
            nonce = hashlib.sha256(data + client_data_hash).digest()
        own = [(NONCE_OID.dotted_string, asn1.encode_der(NonceValue(nonce)), False)]
        if mac:
            policy = asn1.encode_der(TaggedPolicy(ACCESS_CONTROL))
            own.append((ACCESS_CONTROL_OID.dotted_string, policy, False))
        base = profile or Profile(
            not_before=at - timedelta(days=1), not_after=at + timedelta(days=2)
        )
        leaf = self.app_attest.issue(
            hashlib.sha256(point(private)).hexdigest(),
            private.public_key(),
            replace(base, extensions=(*base.extensions, *own)),
        )
        if receipt is None:
            receipt = self.receipt(
                self.receipt_fields(
                    app_id, leaf, client_data_hash, environment=environment, created=at
                )
            )
        chain = (leaf, self.app_attest.certificate)
        return MintedKey(
            private=private,
            app_id=app_id,
            environment=environment,
            client_data_hash=client_data_hash,
            authenticator_data=data,
            chain=chain,
            receipt=receipt,
            attestation=attestation_object(der(chain), receipt, data),
        )

    def receipt_fields(
        self,
        app_id: str,
        leaf: x509.Certificate,
        client_data_hash: bytes,
        *,
        kind: str = "ATTEST",
        environment: Environment = Environment.PRODUCTION,
        created: datetime = NOW,
        risk_metric: int | None = None,
    ) -> dict[int, bytes]:
        """Return the fields of a receipt's payload."""
        sandbox = environment is Environment.DEVELOPMENT
        found = {
            2: app_id.encode(),
            3: leaf.public_bytes(Encoding.DER),
            4: client_data_hash,
            5: b"dG9rZW4=",
            6: kind.encode(),
            7: b"sandbox" if sandbox else b"production",
            12: stamp(created),
            21: stamp(created + timedelta(days=90)),
        }
        if risk_metric is not None:
            found[17] = str(risk_metric).encode()
        if kind == "RECEIPT":
            found[19] = stamp(created + timedelta(days=1))
        return found

    def receipt(self, fields: Mapping[int, bytes], recipe: ReceiptRecipe | None = None) -> bytes:
        """Sign a payload as Apple's fraud service does."""
        recipe = recipe or ReceiptRecipe(fields=fields)
        key = new_key()
        signer = self.receipts.issue(
            "Application Attestation Fraud Receipt Signing", key.public_key(), recipe.signer
        )
        return signed_data(
            payload(fields, recipe.versions),
            key,
            [signer, self.receipts.certificate, self.receipt_root.certificate],
            recipe,
        )

    def device(
        self,
        *,
        serial: str = "TMWFWWWP67",
        udid: str = "00006030-000651690A84001C",
        freshness: bytes | None = bytes(32),
        sip: int | None = 0,
        secure_boot: str | None = "Full Security",
        kernel_extensions: int | None = 0,
        os_version: str = "15.5",
        changes: Mapping[str, bytes | None] | None = None,
        profile: Profile | None = None,
        with_root: bool = True,
    ) -> list[bytes]:
        """Attest a Mac; DER, leaf first.

        Args:
            serial: and the others: properties, None leaves one out.
            udid: of the device.
            freshness: 32 bytes.
            sip: 0 is on.
            secure_boot: Apple's words.
            kernel_extensions: 0 is forbidden.
            os_version: of all three versions.
            changes: raw values by the end of their identifier, None takes one away.
            profile: of the leaf, but its properties.
            with_root: whether the chain ends with the root.
        """
        values: dict[str, bytes | None] = {
            "9.1": serial.encode(),
            "9.2": udid.encode(),
            "9.4": b"J514sAP",
            "10.1": os_version.encode(),
            "10.2": os_version.encode(),
            "10.3": os_version.encode(),
            "11.1": freshness,
            "13.1": None if sip is None else asn1.encode_der(sip),
            "13.2": None if secure_boot is None else secure_boot.encode(),
            "13.3": None if kernel_extensions is None else asn1.encode_der(kernel_extensions),
        } | dict(changes or {})
        own = tuple((MDA + arc, value, False) for arc, value in values.items() if value is not None)
        base = profile or Profile(
            not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=89)
        )
        key = ec.generate_private_key(ec.SECP384R1())
        leaf = self.enterprise.issue(
            "device", key.public_key(), replace(base, extensions=(*base.extensions, *own))
        )
        chain = [leaf, self.enterprise.certificate]
        return der([*chain, self.enterprise_root.certificate] if with_root else chain)


def attestation_object(chain: Sequence[bytes], receipt: bytes, data: bytes) -> bytes:
    statement = {"x5c": list(chain), "receipt": receipt}
    return cbor2.dumps({"fmt": "apple-appattest", "attStmt": statement, "authData": data})


class _Field(core.Sequence):
    _fields = [("type", core.Integer), ("version", core.Integer), ("value", core.OctetString)]  # noqa: RUF012 - the name and kind that asn1crypto reads


class _Payload(core.SetOf):
    _child_spec = _Field


def payload(fields: Mapping[int, bytes], versions: Mapping[int, int] | None = None) -> bytes:
    versions = versions or {}
    return bytes(
        _Payload(
            [
                {"type": number, "version": versions.get(number, 1), "value": value}
                for number, value in fields.items()
            ]
        ).dump()
    )


def signed_data(
    content: bytes,
    key: ec.EllipticCurvePrivateKey,
    certificates: Sequence[x509.Certificate],
    recipe: ReceiptRecipe,
) -> bytes:
    """Write CMS signed data; the first certificate is the signer's."""
    signer = asn1_x509.Certificate.load(certificates[0].public_bytes(Encoding.DER))
    info: dict[str, Any] = {
        "version": "v1",
        "sid": cms.SignerIdentifier(
            {
                "issuer_and_serial_number": cms.IssuerAndSerialNumber(
                    {"issuer": signer.issuer, "serial_number": signer.serial_number}
                )
            }
        ),
        "digest_algorithm": algos.DigestAlgorithm({"algorithm": recipe.digest}),
        "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}),
        "signature": key.sign(content, _ECDSA),
    }
    if recipe.signed_attributes:
        attributes = cms.CMSAttributes(
            [
                cms.CMSAttribute({"type": "content_type", "values": ["data"]}),
                cms.CMSAttribute(
                    {"type": "message_digest", "values": [hashlib.sha256(content).digest()]}
                ),
            ]
        )
        info["signed_attrs"] = attributes
        info["signature"] = key.sign(attributes.dump(), _ECDSA)
    signed = cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [algos.DigestAlgorithm({"algorithm": recipe.digest})],
            "encap_content_info": {"content_type": "data", "content": content},
            "certificates": [
                asn1_x509.Certificate.load(item)
                for item in der([*certificates, *recipe.extra_certificates])
            ],
            "signer_infos": [cms.SignerInfo(info) for _ in range(recipe.signers)],
        }
    )
    return bytes(cms.ContentInfo({"content_type": "signed_data", "content": signed}).dump())
