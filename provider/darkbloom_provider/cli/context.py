"""What every command shares: which `provider.toml`, and what holds here."""

import os
import sys
from contextvars import ContextVar
from pathlib import Path

from darkbloom_mesh.config import EX_CONFIG, ConfigError

from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.settings import PREFIX, Settings, load_settings, locate

_chosen: ContextVar[Path | None] = ContextVar("provider_toml", default=None)


def choose(path: Path | None) -> None:
    """Remember the file of `-c`; the root command calls this once for each run."""
    _chosen.set(path)


def config_path() -> Path:
    """Return the `provider.toml` that counts, whether or not it exists."""
    return locate(os.environ, _chosen.get())  # noqa: TID251 - the one place of the command line that reads it


def settings() -> Settings:
    """Return what holds here; leaves with code 78 and a list where the environment is wrong."""
    try:
        return load_settings(os.environ, _chosen.get())  # noqa: TID251 - as above
    except ConfigError as error:
        lines = "".join(f"  {problem}\n" for problem in error.problems)
        sys.stderr.write(f"provider: configuration refused\n{lines}")
        raise SystemExit(EX_CONFIG) from None


def config() -> ProviderConfig:
    """Return the configuration that holds here; leaves like `settings`."""
    return settings().config


def carried() -> dict[str, str]:
    """Return the variable that makes another process read this very file.

    Always: the service names its home, and a home that is named has a file of its own.
    """
    return {f"{PREFIX}CONFIG": str(config_path().absolute())}
