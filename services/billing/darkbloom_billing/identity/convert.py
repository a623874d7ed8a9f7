"""Messages of identity to values and back; only InvalidArgumentError leaves."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from darkbloom.billing.v1 import account_pb2, identity_pb2
from darkbloom.billing.v1 import identity_service_pb2 as pb
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_billing import convert, convert_keys
from darkbloom_billing.identity import model
from darkbloom_billing.identity.oidc import MAX_TOKEN_BYTES

MAX_USES = 1000
MAX_SECRET = 256
SOURCE_BYTES = 32
_MACHINE_NAME_MAX = 80


def login_token(value: str) -> str:
    """Return a login token of a size that is looked at."""
    if not value or len(value) > MAX_TOKEN_BYTES:
        raise InvalidArgumentError("must be a compact token", "token")
    return value


def secret(value: str, field: str) -> str:
    """Return a presented secret of a size that is looked at."""
    if not value or len(value) > MAX_SECRET:
        raise InvalidArgumentError("must be a short secret", field)
    return value


def source(value: bytes) -> bytes:
    """Return the digest of a network."""
    if len(value) != SOURCE_BYTES:
        raise InvalidArgumentError("must be a digest of 32 bytes", "source")
    return value


def machine_name(value: str) -> str:
    """Return a machine's name as it may be shown: printable, on one line, short."""
    shown = "".join(char if char.isprintable() else " " for char in value)
    return " ".join(shown.split())[:_MACHINE_NAME_MAX]


def key_hash_of(message: pb.DeleteKeyRequest) -> tuple[str, bytes]:
    """Read which key is meant: (id, hash), one of them empty."""
    which = message.WhichOneof("which")
    if which is None:
        raise InvalidArgumentError("must be named by id or hash", "which")
    if which == "key_id":
        return convert.token(message.key_id, "key_id"), b""
    return "", convert.key_hash(message.key_hash)


def patch(message: pb.UpdateKeyRequest) -> dict[str, model.KeyValue]:
    """Read a sparse change: fields that the mask names, None where the key does not give them."""
    changes: dict[str, model.KeyValue] = {}
    for path in message.update_mask.paths:
        reader = _PATCH.get(path)
        if reader is None:
            raise InvalidArgumentError("names a field that cannot be changed", "update_mask")
        name, read = reader
        changes[name] = read(message.key)
    return changes


def uses(messages: Sequence[pb.KeyUse]) -> Mapping[str, datetime]:
    """Read a batch of uses; of two with one key the later one counts."""
    if len(messages) > MAX_USES:
        raise InvalidArgumentError(f"at most {MAX_USES} are allowed", "uses")
    found: dict[str, datetime] = {}
    for message in messages:
        key_id = convert.token(message.key_id, "key_id")
        at = convert.moment(message.use_time, "use_time")
        found[key_id] = max(at, found.get(key_id, at))
    return found


def login(value: model.SignedIn) -> identity_pb2.Login:
    """Write a login."""
    return identity_pb2.Login(
        user_id=value.user.user_id,
        account_id=value.user.account_id,
        email=value.user.email,
        account_role=value.user.account_role,
        admin=value.admin,
        expire_time=convert.timestamp(value.expires_at),
    )


def profile(value: model.User) -> identity_pb2.Profile:
    """Write a profile."""
    return identity_pb2.Profile(
        user_id=value.user_id,
        account_id=value.account_id,
        email=value.email,
        email_verified=value.email_verified,
        display_name=value.display_name,
        account_role=value.account_role,
        create_time=convert.timestamp(value.created_at),
    )


def key(value: model.KeyView) -> account_pb2.ApiKey:
    """Write a key with what its owner sees."""
    message = convert_keys.key(value.key)
    message.usage_micros = value.usage_micros
    if value.remaining_micros is not None:
        message.remaining_micros = value.remaining_micros
    if value.used_at is not None:
        message.last_use_time.CopyFrom(convert.timestamp(value.used_at))
    return message


def state(value: model.CodeState) -> identity_pb2.DeviceCodeState.ValueType:
    """Write the state of a code."""
    return identity_pb2.DeviceCodeState.Value(f"DEVICE_CODE_STATE_{value.name}")


def provider_token(value: model.ProviderToken) -> identity_pb2.ProviderToken:
    """Write a provider token."""
    return identity_pb2.ProviderToken(
        token_id=value.token_id,
        account_id=value.account_id,
        label=value.label,
        machine_name=value.machine_name,
        create_time=convert.timestamp(value.created_at),
    )


def _limit(name: str, high: int) -> Callable[[account_pb2.ApiKey], model.KeyValue]:
    def read(key: account_pb2.ApiKey) -> model.KeyValue:
        if not key.HasField(name):  # type: ignore[arg-type]
            return None
        return convert.between(getattr(key, name), 0, high, name)

    return read


def _expires(key: account_pb2.ApiKey) -> datetime | None:
    return convert.moment(key.expire_time, "expire_time") if key.HasField("expire_time") else None


_PATCH: Mapping[str, tuple[str, Callable[[account_pb2.ApiKey], model.KeyValue]]] = {
    "name": ("name", lambda key: convert.text(key.name, "name")),
    "disabled": ("disabled", lambda key: key.disabled),
    "limit_micros": ("limit_micros", _limit("limit_micros", convert.MAX_MICROS)),
    "limit_reset": ("limit_reset", lambda key: convert_keys.limit_reset(key.limit_reset)),
    "rpm_limit": ("rpm_limit", _limit("rpm_limit", convert_keys.MAX_RPM)),
    "input_tpm_limit": ("input_tpm_limit", _limit("input_tpm_limit", convert_keys.MAX_TPM)),
    "output_tpm_limit": ("output_tpm_limit", _limit("output_tpm_limit", convert_keys.MAX_TPM)),
    "allowed_models": ("allowed_models", lambda key: convert_keys.models(key.allowed_models)),
    "self_route_only": ("self_route_only", lambda key: key.self_route_only),
    "expire_time": ("expires_at", _expires),
}
