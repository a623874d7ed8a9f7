from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import (
    CommonConfig,
    ConfigError,
    RoomConfig,
    Secret,
    Setting,
    describe,
    load,
    main_config,
)
from hypothesis import given
from hypothesis import strategies as st


class Mode(Enum):
    """A switch."""

    OFF = "off"
    SHADOW = "shadow"


@dataclass(frozen=True, kw_only=True)
class ThingConfig(RoomConfig):
    """One field of each type."""

    database_url: Annotated[Secret, Setting("PostgreSQL", env="DATABASE_URL")]
    listen: Annotated[str, Setting("address")] = "127.0.0.1:0"
    wait_s: Annotated[float, Setting("longest wait", minimum=0.5, maximum=10)] = 2.0
    depth: Annotated[int, Setting("queue")] = 32
    strict: Annotated[bool, Setting("be strict")] = False
    roots: Annotated[tuple[Path, ...], Setting("roots")] = ()
    mode: Annotated[Mode, Setting("gate")] = Mode.OFF
    peer: Annotated[str | None, Setting("peer")] = None
    pace: Annotated[Literal["slow", "fast"], Setting("pace")] = "slow"


DEV = {"DARKBLOOM_ENV": "development", "DATABASE_URL": "postgresql://u:hunter2@h/d"}


def test_every_type_is_read_from_the_rooms_own_variable() -> None:
    config = load(
        ThingConfig,
        "thing",
        DEV
        | {
            "DARKBLOOM_THING_LISTEN": "0.0.0.0:7400",
            "DARKBLOOM_THING_WAIT_S": "1.5",
            "DARKBLOOM_THING_DEPTH": "7",
            "DARKBLOOM_THING_STRICT": "on",
            "DARKBLOOM_THING_ROOTS": "/a, /b",
            "DARKBLOOM_THING_MODE": "shadow",
            "DARKBLOOM_THING_PEER": "p",
            "DARKBLOOM_THING_PACE": "fast",
        },
    )
    assert config.listen == "0.0.0.0:7400"
    assert config.wait_s == 1.5
    assert config.depth == 7
    assert config.strict is True
    assert config.roots == (Path("/a"), Path("/b"))
    assert config.mode is Mode.SHADOW
    assert config.peer == "p"
    assert config.pace == "fast"
    assert config.environment == "development"


def test_a_secret_shows_in_no_repr() -> None:
    config = load(ThingConfig, "thing", DEV)
    assert "hunter2" not in repr(config)
    assert "hunter2" not in f"{config.database_url}"
    assert config.database_url.reveal().endswith("hunter2@h/d")


def test_the_rooms_own_variable_wins_over_the_fallback() -> None:
    config = load(ThingConfig, "thing", DEV | {"DARKBLOOM_THING_DATABASE_URL": "own"})
    assert config.database_url == Secret("own")


def test_all_problems_are_listed_at_once_and_no_value_is_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            ThingConfig,
            "thing",
            {
                "DARKBLOOM_ENV": "sekrit1",
                "DARKBLOOM_THING_LISTNE": "sekrit2",
                "DARKBLOOM_THING_DEPTH": "sekrit3",
                "DARKBLOOM_THING_WAIT_S": "nan",
                "DARKBLOOM_THING_STRICT": "sekrit4",
                "DARKBLOOM_THING_MODE": "sekrit5",
            },
        )
    text = str(caught.value)
    assert "sekrit" not in text
    assert len(caught.value.problems) == 7
    assert "DARKBLOOM_THING_LISTNE: unknown variable" in caught.value.problems
    assert "DATABASE_URL: required" in caught.value.problems


@pytest.mark.parametrize(("text", "problem"), [("0.4", "below 0.5"), ("11", "above 10")])
def test_a_number_out_of_bounds_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(ThingConfig, "thing", DEV | {"DARKBLOOM_THING_WAIT_S": text})


def test_kubernetes_service_links_are_ignored() -> None:
    links = {
        "DARKBLOOM_THING_SERVICE_HOST": "10.0.0.1",
        "DARKBLOOM_THING_SERVICE_PORT": "7400",
        "DARKBLOOM_THING_SERVICE_PORT_GRPC": "7400",
        "DARKBLOOM_THING_PORT": "tcp://10.0.0.1:7400",
        "DARKBLOOM_THING_PORT_7400_TCP": "tcp://10.0.0.1:7400",
        "DARKBLOOM_THING_PORT_7400_TCP_ADDR": "10.0.0.1",
        "DARKBLOOM_THING_PORT_7400_TCP_PROTO": "tcp",
    }
    load(ThingConfig, "thing", DEV | links)


def test_a_port_that_is_no_service_link_is_unknown() -> None:
    with pytest.raises(ConfigError, match="DARKBLOOM_THING_PORT: unknown"):
        load(ThingConfig, "thing", DEV | {"DARKBLOOM_THING_PORT": "7400"})


def test_production_is_the_default_and_refuses_to_start_without_a_mesh_token() -> None:
    with pytest.raises(ConfigError, match="DARKBLOOM_MESH_TOKEN_FILE: required in production"):
        load(ThingConfig, "thing", {"DATABASE_URL": "x"})


def test_production_starts_with_a_mesh_token(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("t" * 40 + "\n")
    config = load(
        ThingConfig,
        "thing",
        {"DATABASE_URL": "x", "DARKBLOOM_MESH_TOKEN_FILE": str(token_file)},
    )
    assert config.mesh_token() == Secret("t" * 40)


@pytest.mark.parametrize("content", [b"short", b"\xff" * 40, None])
def test_an_unusable_token_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    token_file = tmp_path / "token"
    if content is not None:
        token_file.write_bytes(content)
    with pytest.raises(ConfigError, match="unusable"):
        load(ThingConfig, "thing", DEV | {"DARKBLOOM_MESH_TOKEN_FILE": str(token_file)})


def test_a_process_outside_the_inner_mesh_needs_no_token() -> None:
    assert load(CommonConfig, "agent", {}).environment == "production"


def test_a_bad_environment_leaves_with_code_78_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DARKBLOOM_THING_NONSENSE", "1")
    with pytest.raises(SystemExit) as caught:
        main_config(ThingConfig, "thing")
    assert caught.value.code == 78
    assert "DARKBLOOM_THING_NONSENSE: unknown variable" in capsys.readouterr().err


def test_a_check_says_what_is_set_and_never_a_value_or_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["thing", "--check-config"])
    monkeypatch.setenv("DARKBLOOM_ENV", "development")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/d")
    with pytest.raises(SystemExit) as caught:
        main_config(ThingConfig, "thing")
    said = capsys.readouterr().out
    assert caught.value.code == 0
    assert said.splitlines()[0] == "thing: configuration accepted"
    assert "  DATABASE_URL" in said.splitlines()
    assert "secret" not in said

    monkeypatch.setenv("DARKBLOOM_THING_NONSENSE", "1")
    with pytest.raises(SystemExit) as caught:
        main_config(ThingConfig, "thing")
    assert caught.value.code == 78


def test_the_table_names_every_field_with_its_default() -> None:
    rows = {row.name: row for row in describe(ThingConfig, "thing")}
    assert rows["DARKBLOOM_THING_DATABASE_URL"].default == "required"
    assert rows["DARKBLOOM_THING_DATABASE_URL"].aliases == ("DATABASE_URL",)
    assert rows["DARKBLOOM_THING_MODE"].default == "off"
    assert rows["DARKBLOOM_THING_STRICT"].default == "false"
    assert rows["DARKBLOOM_THING_ROOTS"].default == "unset"


@given(
    st.dictionaries(
        st.sampled_from(
            [
                f"DARKBLOOM_THING_{n}"
                for n in ("DEPTH", "WAIT_S", "STRICT", "ROOTS", "MODE", "PACE", "X")
            ]
        ),
        st.text(),
    )
)
def test_any_environment_gives_a_config_or_a_config_error(environ: dict[str, str]) -> None:
    try:
        load(ThingConfig, "thing", DEV | environ)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - either outcome is right


def test_the_readme_has_the_table_of_the_base() -> None:
    readme = (Path(__file__).parents[3] / "services/mesh/README.md").read_text()
    for row in describe(RoomConfig, "<room>"):
        aliases = f" {', '.join(f'`{alias}`' for alias in row.aliases)} " if row.aliases else " "
        assert f"| `{row.name}` |{aliases}| `{row.default}` | {row.doc} |" in readme


def test_a_clock_is_wrong_by_as_much_as_is_said_and_spans_stay_right() -> None:
    config = load(ThingConfig, "thing", DEV | {"DARKBLOOM_CLOCK_OFFSET_S": "-3600"})
    behind = SystemClock().now() - config.clock().now()
    assert timedelta(minutes=59) < behind < timedelta(minutes=61)
    assert abs(config.clock().monotonic() - SystemClock().monotonic()) < 60


def test_production_has_no_wrong_clock() -> None:
    environ = DEV | {"DARKBLOOM_ENV": "production", "DARKBLOOM_CLOCK_OFFSET_S": "1"}
    with pytest.raises(ConfigError, match="development only"):
        load(ThingConfig, "thing", environ)
