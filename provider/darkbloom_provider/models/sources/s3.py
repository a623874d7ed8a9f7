"""Files of an S3-compatible store, through `obstore`, which signs requests and reads ranges."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import obstore
from darkbloom_edge.model_source import ModelSource
from obstore.exceptions import (
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from darkbloom_provider.models.sources.interface import (
    CONNECT_S,
    SILENCE_S,
    LostError,
    RefusedError,
)

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_BLOCK: Final = 1 << 18
_REFUSALS: Final = (NotFoundError, PermissionDeniedError, UnauthenticatedError)


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Access:
    """How the owner reaches the store."""

    endpoint: str = ""
    """Base URL; empty: Amazon's own."""
    region: str = "us-east-1"
    key_id: str = ""
    """Empty: requests are not signed, for public buckets."""
    secret: str = field(default="", repr=False)


class S3Source:
    """One prefix of one bucket.

    Args:
        place: `s3://bucket/prefix`.
        access: how to reach it.
        plain_http: whether the endpoint may speak plain HTTP; for development.
    """

    def __init__(self, place: ModelSource, access: S3Access, *, plain_http: bool) -> None:
        bucket, _, prefix = place.location.partition("/")
        self._place = place
        self._prefix = prefix
        config: S3Config = {"region": access.region, "virtual_hosted_style_request": False}
        if access.endpoint:
            config["endpoint"] = access.endpoint
        if access.key_id:
            config |= {"access_key_id": access.key_id, "secret_access_key": access.secret}
        else:
            config["skip_signature"] = True
        options: ClientConfig = {
            "allow_http": plain_http,
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "read_timeout": timedelta(seconds=SILENCE_S),
            # Of a whole request; a file of a hundred gigabytes takes its time.
            "timeout": timedelta(days=1),
        }
        # We try again ourselves, and say so; a silent second try would only double the waiting.
        self._store = S3Store(
            bucket, config=config, client_options=options, retry_config={"max_retries": 0}
        )

    @property
    def name(self) -> str:
        """The place as it was written."""
        return self._place.text

    @asynccontextmanager
    async def open(self, path: str, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a file; see `Source`."""
        key = f"{self._prefix}/{path}" if self._prefix else path
        try:
            options: obstore.GetOptions = {"range": {"offset": offset}} if offset else {}
            found = await obstore.get_async(self._store, key, options=options)
        except _REFUSALS as error:
            raise RefusedError(f"{self.name} refuses {path} ({type(error).__name__})") from None
        except (BaseError, OSError) as error:
            raise LostError(f"{self.name} does not answer ({type(error).__name__})") from None
        yield self._blocks(found)

    async def close(self) -> None:
        """Do nothing: the library closes idle connections."""

    async def _blocks(self, found: "obstore.GetResult") -> AsyncIterator[bytes]:
        try:
            async for block in found.stream(min_chunk_size=_BLOCK):
                yield bytes(block)
        except (BaseError, OSError) as error:
            raise LostError(f"{self.name} broke off ({type(error).__name__})") from None
