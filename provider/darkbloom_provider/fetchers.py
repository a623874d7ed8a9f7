"""Which network this machine fetches models from, by its configuration or its login."""

from darkbloom_provider.account import read_login
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.models.fetching import Fetcher
from darkbloom_provider.models.pins import parse_keys
from darkbloom_provider.models.sources.opening import SourceSettings


def gateway_of(config: ProviderConfig) -> str:
    """Return the base URL of the gateway.

    Raises:
        ProviderError: neither configuration nor login names one.
    """
    if config.gateway is not None:
        return config.gateway
    login = read_login(config.folders.login)
    if login is not None:
        return login.gateway
    raise ProviderError(
        "no gateway is known, so there is no catalog",
        "set DARKBLOOM_PROVIDER_GATEWAY, or run `darkbloom login`",
    )


def make_fetcher(config: ProviderConfig) -> Fetcher:
    """Return what fetches models here.

    Raises:
        ProviderError: No gateway is known.
    """
    return Fetcher(
        gateway=gateway_of(config),
        keys=parse_keys(config.manifest_keys),
        pins_file=config.folders.manifest_keys,
        settings=source_settings(config),
    )


def source_settings(config: ProviderConfig) -> SourceSettings:
    """Return what the owner says about places; S3 is read only where he has named a store."""
    s3 = None
    if config.s3_endpoint or config.s3_access_key_id is not None:
        from darkbloom_provider.models.sources.s3 import S3Access

        key, secret = config.s3_access_key_id, config.s3_secret_access_key
        s3 = S3Access(
            endpoint=config.s3_endpoint,
            region=config.s3_region,
            key_id=key.reveal() if key is not None else "",
            secret=secret.reveal() if secret is not None else "",
        )
    return SourceSettings(
        mirrors=config.model_mirrors,
        hub=config.hugging_face_url,
        s3=s3,
        plain_http=config.environment == "development",
    )
