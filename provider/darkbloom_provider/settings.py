"""What holds here: defaults, then `provider.toml`, then the environment; flags of a command win."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from darkbloom_mesh.config import ConfigError, load

from darkbloom_provider import provider_toml
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.file_keys import BY_FIELD
from darkbloom_provider.provider_toml import Problem, ProviderFile
from darkbloom_provider.schedule import Window

ROOM = "provider"
PREFIX = "DARKBLOOM_PROVIDER_"
FILE_NAME = "provider.toml"
_USUAL = Path("~/.config/darkbloom") / FILE_NAME

Source = Literal["default", "file", "environment"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Configuration and where it came from."""

    config: ProviderConfig
    file: ProviderFile
    problems: tuple[Problem, ...]
    """What is wrong with the file; none of it is in force."""
    sources: Mapping[str, Source]
    """Field to where its value comes from."""

    @property
    def windows(self) -> tuple[Window, ...]:
        """When the owner lends this machine out; none: always."""
        return self.file.windows if self.file.schedule_enabled else ()


def locate(environ: Mapping[str, str], chosen: Path | None = None) -> Path:
    """Return which file counts: `-c`, the variable, or the usual place.

    A home of its own has a file of its own, so that a second agent, or a mesh that a developer
    runs, never takes the settings of the first.
    """
    if chosen is not None:
        return chosen.expanduser()
    if named := environ.get(f"{PREFIX}CONFIG"):
        return Path(named).expanduser()
    if home := environ.get(f"{PREFIX}HOME"):
        return Path(home).expanduser() / FILE_NAME
    return _USUAL.expanduser()


def load_settings(environ: Mapping[str, str], chosen: Path | None = None) -> Settings:
    """Merge file and environment.

    Raises:
        ConfigError: The environment is at fault; the file never is.
    """
    path = locate(environ, chosen)
    file = provider_toml.read(path)
    given = {name: value for name, value in environ.items() if value}
    values = dict(file.values)
    problems = list(file.problems)
    while True:
        from_file = {PREFIX + name.upper(): text for name, text in values.items()}
        try:
            config = load(ProviderConfig, ROOM, {**from_file, **given})
        except ConfigError as error:
            wrong = _of_file(error, set(from_file) - set(given))
            if not wrong:
                raise
            for name, message in wrong.items():
                del values[name]
                key = BY_FIELD[name].path
                problems.append(Problem(message, key, file.lines.get(key, 0)))
            continue
        return Settings(
            config=config,
            file=file,
            problems=tuple(problems),
            sources={
                name: "environment" if PREFIX + name.upper() in given else _source(name, values)
                for name in BY_FIELD
            },
        )


def _source(name: str, values: Mapping[str, str]) -> Source:
    return "file" if name in values else "default"


def _of_file(error: ConfigError, names: set[str]) -> dict[str, str]:
    """Return field to message for each problem whose value the file gave."""
    found = {}
    for problem in error.problems:
        name, _, message = problem.partition(": ")
        if name in names:
            found[name.removeprefix(PREFIX).lower()] = message
    return found
