"""Messages of API keys to values and back; only InvalidArgumentError leaves."""

from collections.abc import Sequence

from darkbloom.billing.v1 import account_pb2, account_service_pb2
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_billing import convert, model

MAX_RPM = 2**31 - 1
MAX_TPM = 2**53
_MAX_MODELS = 1000


def new_key(message: account_service_pb2.CreateKeyRequest) -> model.NewKey:
    """Read a key to create."""
    expires = message.expire_time if message.HasField("expire_time") else None
    return model.NewKey(
        account_id=convert.token(message.account_id, "account_id"),
        key_hash=convert.key_hash(message.key_hash),
        label=convert.text(message.label, "label"),
        name=convert.text(message.name, "name"),
        allowed_models=models(message.allowed_models),
        limit_micros=(
            convert.between(message.limit_micros, 0, convert.MAX_MICROS, "limit_micros")
            if message.HasField("limit_micros")
            else None
        ),
        rpm_limit=(
            convert.between(message.rpm_limit, 0, MAX_RPM, "rpm_limit")
            if message.HasField("rpm_limit")
            else None
        ),
        limit_reset=limit_reset(message.limit_reset),
        input_tpm_limit=(
            convert.between(message.input_tpm_limit, 0, MAX_TPM, "input_tpm_limit")
            if message.HasField("input_tpm_limit")
            else None
        ),
        output_tpm_limit=(
            convert.between(message.output_tpm_limit, 0, MAX_TPM, "output_tpm_limit")
            if message.HasField("output_tpm_limit")
            else None
        ),
        self_route_only=message.self_route_only,
        expires_at=convert.moment(expires, "expire_time") if expires is not None else None,
    )


def key_change(change: model.KeyChange) -> account_service_pb2.WatchKeysResponse:
    """Write what gateways have to forget."""
    if change.account_id:
        return account_service_pb2.WatchKeysResponse(
            generation=change.generation,
            account_changed=account_service_pb2.AccountChanged(account_id=change.account_id),
        )
    return account_service_pb2.WatchKeysResponse(
        generation=change.generation,
        changed=account_service_pb2.KeyChanged(key_hash=change.key_hash, key_id=change.key_id),
    )


def models(names: Sequence[str]) -> tuple[str, ...]:
    """Read a list of models, each once."""
    if len(names) > _MAX_MODELS:
        raise InvalidArgumentError(f"at most {_MAX_MODELS} are allowed", "allowed_models")
    return tuple(dict.fromkeys(convert.token(name, "allowed_models") for name in names))


def limit_reset(value: account_pb2.LimitReset.ValueType) -> str:
    """Read when a limit starts anew; what is not known never does."""
    known = value in account_pb2.LimitReset.values()
    name = account_pb2.LimitReset.Name(value) if known else "LIMIT_RESET_NONE"
    word = name.removeprefix("LIMIT_RESET_").lower()
    return "none" if word == "unspecified" else word


def key(value: model.ApiKey) -> account_pb2.ApiKey:
    """Write a key."""
    new = value.new
    return account_pb2.ApiKey(
        key_id=value.key_id,
        account_id=new.account_id,
        name=new.name,
        label=new.label,
        revoked=value.revoked,
        allowed_models=new.allowed_models,
        limit_micros=new.limit_micros,
        rpm_limit=new.rpm_limit,
        expire_time=convert.timestamp(new.expires_at) if new.expires_at else None,
        create_time=convert.timestamp(value.created_at),
        account_role=value.account_role,
        disabled=value.disabled,
        limit_reset=account_pb2.LimitReset.Value(f"LIMIT_RESET_{new.limit_reset.upper()}"),
        input_tpm_limit=new.input_tpm_limit,
        output_tpm_limit=new.output_tpm_limit,
        self_route_only=new.self_route_only,
    )
