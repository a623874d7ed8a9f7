"""One way to configure a room: a frozen dataclass, filled from `DARKBLOOM_<ROOM>_<FIELD>`.

    @dataclass(frozen=True, kw_only=True)
    class RouterConfig(RoomConfig):
        public_listen: Annotated[str, Setting("address that providers dial")] = "0.0.0.0:8443"
        database_url: Annotated[Secret, Setting("PostgreSQL", env="DATABASE_URL")]

    config = main_config(RouterConfig, "router")

A variable of the room that no field answers to, or a value that does not parse, stops the start,
and every problem is listed at once; values are never repeated in a message. Types: str, int, float
(`_s` fields are seconds), bool, Path, `Secret`, Literal, enums (by value), `tuple[T, ...]`
(comma-separated) and `T | None`. An empty variable counts as unset.
"""

import math
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.secret import Secret
from darkbloom_mesh.tls import TlsFiles, TlsPaths

__all__ = ["CHECK_CONFIG", "CHECK_HELP", "EX_CONFIG", "CommonConfig", "ConfigError", "RoomConfig"]
__all__ += ["Row", "Secret", "Setting", "describe", "load", "main_config"]
EX_CONFIG = 78
CHECK_CONFIG = "--check-config"
CHECK_HELP = "only say what is wrong with the configuration: exit code 0, or 78 and the problems"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_MIN_TOKEN_LENGTH = 32
_MAX_COMMIT = 64
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
# Kubernetes injects these for each service of the namespace when enableServiceLinks is left on.
_SERVICE_LINK = re.compile(
    r"(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?"
    r"|_PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)$"
)


class ConfigError(Exception):
    """The environment is not a valid configuration; `problems` lists everything wrong with it."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True)
class Setting:
    """What a field's annotation says beyond its type."""

    doc: str
    """One line for the table in the README."""
    env: str | tuple[str, ...] = ()
    """Other variables to read when the room's own one is unset, in order."""
    minimum: float | None = None
    """Smallest allowed number."""
    maximum: float | None = None
    """Largest allowed number."""


@dataclass(frozen=True, kw_only=True)
class CommonConfig:
    """What every process has, whether or not it is part of the inner mesh."""

    environment: Annotated[
        Literal["production", "development"],
        Setting("`development` relaxes admission", env="DARKBLOOM_ENV"),
    ] = "production"
    metrics_listen: Annotated[str, Setting("host:port of `/metrics`; port 0 picks one")] = (
        "127.0.0.1:0"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting("lowest level written", env="DARKBLOOM_LOG_LEVEL"),
    ] = "info"
    otlp_endpoint: Annotated[
        str | None,
        Setting("OTLP/HTTP collector; unset sends no traces", env="OTEL_EXPORTER_OTLP_ENDPOINT"),
    ] = None
    trace_share: Annotated[
        float, Setting("part of new traces", env="OTEL_TRACES_SAMPLER_ARG", minimum=0, maximum=1)
    ] = 0.05
    build_commit: Annotated[
        str, Setting("commit of this build; the operator's word", env="DARKBLOOM_BUILD_COMMIT")
    ] = "unknown"
    drain_grace_s: Annotated[
        float, Setting("seconds for in-flight work after SIGTERM", minimum=0)
    ] = 30.0
    ready_file: Annotated[
        Path | None, Setting("written as JSON with pid and bound ports once serving")
    ] = None
    clock_offset_s: Annotated[
        float,
        Setting(
            "seconds by which the wall clock is wrong, for drills; development only",
            env="DARKBLOOM_CLOCK_OFFSET_S",
        ),
    ] = 0.0

    def problems(self) -> Iterator[str]:
        """Yield what is wrong across fields; a room extends it."""
        if len(self.build_commit) > _MAX_COMMIT:
            yield f"DARKBLOOM_BUILD_COMMIT: longer than {_MAX_COMMIT} characters"
        if self.clock_offset_s and self.environment != "development":
            yield "DARKBLOOM_CLOCK_OFFSET_S: a clock is wrong on purpose in development only"

    def clock(self) -> Clock:
        """Return the clock that the process goes by."""
        return SystemClock(self.clock_offset_s)


@dataclass(frozen=True, kw_only=True)
class RoomConfig(CommonConfig):
    """The base of a room of the inner mesh."""

    mesh_token_file: Annotated[
        Path | None,
        Setting("file with the token of internal calls", env="DARKBLOOM_MESH_TOKEN_FILE"),
    ] = None
    health_listen: Annotated[
        str | None,
        Setting("host:port of gRPC health alone, always plaintext, for probes; unset: none"),
    ] = None
    connection_age_s: Annotated[
        float,
        Setting("callers connect anew after so long and find new replicas; 0: never", minimum=0),
    ] = 0.0

    tls_cert_file: Annotated[
        Path | None,
        Setting("PEM certificate of this room, and its chain", env="DARKBLOOM_TLS_CERT_FILE"),
    ] = None
    tls_key_file: Annotated[
        Path | None, Setting("PEM key of that certificate", env="DARKBLOOM_TLS_KEY_FILE")
    ] = None
    tls_ca_file: Annotated[
        Path | None,
        Setting("PEM authorities of the mesh", env="DARKBLOOM_TLS_CA_FILE"),
    ] = None
    trust_domain: Annotated[
        str, Setting("the mesh's name in certificates", env="DARKBLOOM_TRUST_DOMAIN")
    ] = "darkbloom.local"

    def problems(self) -> Iterator[str]:
        """Refuse production without token or certificates, and files that cannot be used."""
        yield from super().problems()
        unguarded = self.mesh_token_file is None and self.tls_paths() is None
        if unguarded and self.environment == "production":
            yield (
                "DARKBLOOM_MESH_TOKEN_FILE: required in production, or the three DARKBLOOM_TLS_*"
            )
        try:
            self.mesh_token()
        except (OSError, UnicodeError, ValueError) as error:
            yield f"DARKBLOOM_MESH_TOKEN_FILE: unusable ({type(error).__name__})"
        yield from _tls_problems(self)

    def tls_paths(self) -> TlsPaths | None:
        """Return where the certificate is; None unless all three files are set."""
        if self.tls_cert_file is None or self.tls_key_file is None or self.tls_ca_file is None:
            return None
        return TlsPaths(
            certificate=self.tls_cert_file,
            key=self.tls_key_file,
            authorities=self.tls_ca_file,
            trust_domain=self.trust_domain,
        )

    def tls(self) -> TlsFiles | None:
        """Read the certificate; None where the mesh has none.

        Raises:
            OSError: A file cannot be read.
            ValueError: The files do not fit together.
        """
        paths = self.tls_paths()
        return TlsFiles(paths, self.clock()) if paths else None

    def mesh_token(self) -> Secret | None:
        """Read the token; None where no file is set.

        Raises:
            OSError: The file cannot be read.
            ValueError: The token is too short or not printable ASCII.
        """
        if self.mesh_token_file is None:
            return None
        token = self.mesh_token_file.read_text("ascii").strip()
        if len(token) < _MIN_TOKEN_LENGTH or not token.isprintable():
            raise ValueError("unusable mesh token")
        return Secret(token)


def _tls_problems(config: RoomConfig) -> Iterator[str]:
    files = (config.tls_cert_file, config.tls_key_file, config.tls_ca_file)
    if not _DOMAIN.fullmatch(config.trust_domain):
        yield "DARKBLOOM_TRUST_DOMAIN: not a domain name"
    elif any(files) and not all(files):
        yield "DARKBLOOM_TLS_*: CERT_FILE, KEY_FILE and CA_FILE are set together or not at all"
    else:
        try:
            config.tls()
        except OSError as error:
            yield f"DARKBLOOM_TLS_*: unusable ({type(error).__name__})"
        except ValueError as error:
            yield f"DARKBLOOM_TLS_*: {error}"


ConfigT = TypeVar("ConfigT", bound=CommonConfig)


@dataclass(frozen=True)
class Row:
    """One row of a README's environment table."""

    name: str
    aliases: tuple[str, ...]
    default: str
    doc: str


def load(cls: type[ConfigT], room: str, environ: Mapping[str, str]) -> ConfigT:
    """Build the configuration of a room.

    Raises:
        ConfigError: With one problem for each variable that is unknown, missing or malformed.
    """
    prefix = _prefix(room)
    problems: list[str] = []
    values: dict[str, Any] = {}
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        kind, setting = _split(hints[field.name])
        names = _names(prefix, field, setting)
        name = next((name for name in names if environ.get(name)), None)
        if name is None:
            if field.default is MISSING and field.default_factory is MISSING:
                problems.append(f"{names[-1]}: required")
            continue
        try:
            values[field.name] = _bounded(_parse(kind, environ[name]), setting)
        except (ValueError, TypeError) as error:
            problems.append(f"{name}: {error}")

    own = {_names(prefix, field, Setting(""))[0] for field in fields(cls)}
    unknown = (
        n
        for n in environ
        if n.startswith(prefix) and n not in own and not _service_link(n, environ[n])
    )
    problems.extend(f"{name}: unknown variable" for name in sorted(unknown))
    if problems:
        raise ConfigError(problems)

    config = cls(**values)
    if found := tuple(config.problems()):
        raise ConfigError(found)
    return config


def main_config(cls: type[ConfigT], room: str) -> ConfigT:
    """Load from the process environment, or leave with code 78 and a readable list of problems.

    With `--check-config` on the command line it leaves in any case, with 0 and the names that are
    set where nothing is wrong: files that are named are read, nothing is opened or begun.
    """
    environ = os.environ  # noqa: TID251 - the one place that reads it
    try:
        config = load(cls, room, environ)
    except ConfigError as error:
        lines = "".join(f"  {problem}\n" for problem in error.problems)
        sys.stderr.write(f"{room}: configuration refused\n{lines}")
        raise SystemExit(EX_CONFIG) from None
    if CHECK_CONFIG in sys.argv[1:]:
        known = [name for row in describe(cls, room) for name in (row.name, *row.aliases)]
        names = "".join(f"  {name}\n" for name in known if environ.get(name))
        sys.stdout.write(f"{room}: configuration accepted\n{names}")
        raise SystemExit(0)
    return config


def describe(cls: type[CommonConfig], room: str) -> list[Row]:
    """Return the environment table of a room, in field order."""
    prefix = _prefix(room)
    hints = get_type_hints(cls, include_extras=True)
    rows = []
    for field in fields(cls):
        _, setting = _split(hints[field.name])
        name, *aliases = _names(prefix, field, setting)
        default = "required" if field.default is MISSING else _shown(field.default)
        rows.append(Row(name, tuple(aliases), default, setting.doc))
    return rows


def _prefix(room: str) -> str:
    return f"DARKBLOOM_{room.upper()}_"


def _names(prefix: str, field: Field[Any], setting: Setting) -> list[str]:
    aliases = (setting.env,) if isinstance(setting.env, str) else setting.env
    return [prefix + field.name.upper(), *aliases]


def _split(hint: Any) -> tuple[Any, Setting]:
    if get_origin(hint) is not Annotated:
        return hint, Setting("")
    kind, *extras = get_args(hint)
    return kind, next((extra for extra in extras if isinstance(extra, Setting)), Setting(""))


def _service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK.search(name)) or (
        name.endswith("_PORT") and value.startswith("tcp://")
    )


def _shown(default: object) -> str:
    if default is None or default == ():
        return "unset"
    if isinstance(default, tuple):
        return ",".join(map(_shown, default))
    if isinstance(default, Enum):
        return str(default.value)
    return str(default).lower() if isinstance(default, bool) else str(default)


def _bounded(value: object, setting: Setting) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if setting.minimum is not None and value < setting.minimum:
            raise ValueError(f"below {setting.minimum}")
        if setting.maximum is not None and value > setting.maximum:
            raise ValueError(f"above {setting.maximum}")
    return value


def _parse(kind: Any, text: str) -> object:
    """Turn one variable into a value; messages never repeat the text."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _parse(next(arg for arg in args if arg is not types.NoneType), text)
    if origin is tuple:
        return tuple(_parse(args[0], part.strip()) for part in text.split(",") if part.strip())
    if origin is Literal:
        return _parse_choice({str(arg): arg for arg in args}, text)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _parse_choice({str(member.value): member for member in kind}, text)
    if kind in _SCALARS:
        return _SCALARS[kind](text)
    raise TypeError("field has a type that configuration cannot read")


def _parse_choice(choices: Mapping[str, object], text: str) -> object:
    if text not in choices:
        raise ValueError(f"not one of {', '.join(choices)}")
    return choices[text]


def _parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError("not a boolean")
    return lowered in _TRUE


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("not an integer") from None


def _parse_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("not a number") from None
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


_SCALARS: Mapping[Any, Callable[[str], object]] = {
    str: str,
    Path: Path,
    Secret: Secret,
    bool: _parse_bool,
    int: _parse_int,
    float: _parse_float,
}
