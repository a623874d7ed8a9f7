"""The command line: what each command says, and with which exit code it leaves."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
from darkbloom_edge.signatures import to_base64
from darkbloom_provider import identity, lock, state
from darkbloom_provider.home import Home

from tests.component.provider.models import BUILD, place_model

EX_USAGE, EX_CONFIG = 64, 78


def start(home: Home, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `start` as a process of its own, because it hardens the one it runs in."""
    return subprocess.run(
        [sys.executable, "-m", "darkbloom_provider", "start", "--foreground", *flags],
        env={
            "PATH": os.environ["PATH"],  # noqa: TID251 - for a real child
            "DARKBLOOM_ENV": "development",
            "DARKBLOOM_PROVIDER_HOME": str(home.root),
            "DARKBLOOM_PROVIDER_COORDINATOR_TLS": "false",
            "COLUMNS": "200",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def snapshot(**changes) -> state.AgentState:
    fields = {
        "pid": os.getpid(),
        "version": "0.1.0",
        "started_at": datetime.now(UTC).isoformat(),  # noqa: TID251 - read by a real command
        "updated_at": datetime.now(UTC).isoformat(),  # noqa: TID251 - read by a real command
        "coordinator": "router:8443",
        "connection": "registered",
        "engine": "scripted",
        "account_id": "acct_1",
        "trust_status": "online",
        "admission": "public",
        "accepted_models": (BUILD,),
    }
    return state.AgentState(**{**fields, **changes})


# start


def test_start_without_a_model_says_how_to_get_one(home):
    done = start(home, "--engine", "scripted")
    assert done.returncode == 1
    assert "no model to serve" in done.stderr
    assert "models import" in done.stderr


def test_start_with_a_model_that_is_not_there_names_it(home):
    place_model(home.models)
    done = start(home, "--engine", "scripted", "--model", "dev/other")
    assert done.returncode == 1
    assert "dev/other" in done.stderr


def test_the_mlx_engine_does_not_serve_development_builds(home):
    place_model(home.models)
    done = start(home, "--engine", "mlx")
    assert done.returncode == 1
    assert "no model to serve" in done.stderr


def test_start_refuses_a_model_whose_bytes_have_changed(home):
    (place_model(home.models) / "config.json").write_bytes(b'{"model_type":"scriptex"}\n')
    done = start(home, "--engine", "scripted")
    assert done.returncode == 1
    assert "cannot be served" in done.stderr


def test_start_refuses_a_script_that_is_not_valid(home):
    place_model(home.models)
    done = start(home, "--engine", "scripted", DARKBLOOM_PROVIDER_SCRIPT='{"txt": 1}')
    assert done.returncode == 1
    assert "DARKBLOOM_PROVIDER_SCRIPT" in done.stderr


def test_start_refuses_an_identity_that_others_can_read(home):
    place_model(home.models)
    identity.load_or_create(home.identity_key)
    home.identity_key.chmod(0o644)
    done = start(home, "--engine", "scripted")
    assert done.returncode == 1
    assert "chmod 600" in done.stderr


def test_start_refuses_roots_that_cannot_be_read(home):
    place_model(home.models)
    done = start(
        home,
        "--engine",
        "scripted",
        DARKBLOOM_PROVIDER_COORDINATOR_TLS="true",
        DARKBLOOM_PROVIDER_COORDINATOR_CA_FILE=str(home.root / "none.pem"),
    )
    assert done.returncode == 1
    assert "none.pem cannot be read" in done.stderr


def test_a_second_agent_in_the_same_home_is_refused(cli, home):
    # In this process: it is refused before it hardens anything.
    with lock.single_instance(home.lock):
        code, _, err = cli("start", "--foreground", "--engine", "scripted")
    assert code == 1
    assert f"another agent is running here (process {os.getpid()})" in err


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"DARKBLOOM_PROVIDER_TYPO": "1"}, "DARKBLOOM_PROVIDER_TYPO"),
        ({"DARKBLOOM_PROVIDER_HEARTBEAT_INTERVAL_S": "soon"}, "HEARTBEAT_INTERVAL_S"),
        ({"DARKBLOOM_PROVIDER_COORDINATOR": "nowhere"}, "must be host:port"),
        ({"DARKBLOOM_PROVIDER_MAX_CONCURRENCY": "9"}, "at most 8 with the mlx engine"),
        ({"DARKBLOOM_PROVIDER_COORDINATOR_CA_FILE": "/x.pem"}, "has no use without TLS"),
        ({"DARKBLOOM_ENV": "production"}, "DARKBLOOM_PROVIDER_COORDINATOR_TLS"),
    ],
)
def test_a_configuration_that_cannot_work_stops_the_start(cli, monkeypatch, environment, named):
    monkeypatch.setenv("DARKBLOOM_PROVIDER_COORDINATOR_TLS", "false")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, _, err = cli("start", "--foreground")
    assert code == EX_CONFIG
    assert named in err


def test_flags_are_checked_like_the_environment(cli):
    assert cli("start", "--engine", "magic")[0] == EX_USAGE
    code, _, err = cli("start", "--foreground", "--coordinator", "nowhere")
    assert code == 1
    assert "must be host:port" in err


# status


def test_status_before_the_first_start_says_so(cli):
    code, out, _ = cli("status")
    assert code == 1
    assert "has not run here yet" in out


def test_status_of_a_registered_agent_is_zero_and_says_why_it_earns(cli, home):
    rejected = state.RejectedModel(id="org/x", reason="not_serving_model", detail="[/]other bytes")
    state.write(home.state, snapshot(trust_reason="[bold]why", rejected_models=(rejected,)))
    with lock.single_instance(home.lock):
        code, out, _ = cli("status")
        json_code, json_out, _ = cli("status", "--json")
    assert code == json_code == 0
    # Text of the router is shown as it is, never as markup.
    assert "[bold]why" in out
    assert "[/]other bytes" in out
    assert json.loads(json_out)["running"] is True
    assert json.loads(json_out)["accepted_models"] == [BUILD]


def test_status_and_doctor_name_the_gate_that_keeps_requests_away(cli, home):
    shut = state.RoutedModel(
        id=BUILD,
        eligible=False,
        reason="challenge_stale",
        evidence="challenge passed 17 min ago, limit 16 min",
        remedy="wait for the next challenge",
    )
    state.write(home.state, snapshot(routing=(shut,)))
    with lock.single_instance(home.lock):
        _, status, _ = cli("status")
        _, doctor, _ = cli("doctor", "--json")
    assert "challenge_stale" in status
    assert "limit 16 min; wait for the next challenge" in " ".join(status.split())
    [check] = [item for item in json.loads(doctor) if item["name"] == "requests"]
    assert check["result"] == "warn"
    assert "17 min ago" in check["detail"]
    assert check["fix"] == "wait for the next challenge"


def test_status_of_a_dead_or_disconnected_agent_is_one(cli, home):
    state.write(home.state, snapshot())
    code, out, _ = cli("status")
    assert code == 1
    assert "not running" in out
    state.write(home.state, snapshot(connection="connecting", updated_at="never"))
    with lock.single_instance(home.lock):
        code, out, _ = cli("status")
    assert code == 1
    assert "STALE" in out


# models


def model_folder(parent: Path) -> Path:
    """Make a folder that has the files of a model, though no engine could load it."""
    folder = parent / "source"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_folder_is_imported_listed_verified_and_removed(cli, tmp_path):
    source = model_folder(tmp_path)
    code, out, err = cli("models", "import", str(source), "--id", "org/tiny", "--json")
    assert code == 0, err
    row = json.loads(out)
    assert row["id"] == "org/tiny"

    listed = json.loads(cli("models", "list", "--json")[1])
    assert listed == [row | {"in_use": False}]
    assert "org/tiny" in cli("models", "list")[1]
    assert cli("models", "verify")[0] == 0
    assert cli("models", "import", str(source), "--id", "org/tiny")[0] == 0

    (Path(row["directory"]) / "model.safetensors").write_bytes(b"weightz")
    code, out, _ = cli("models", "verify", "org/tiny", "--json")
    assert code == 1
    assert json.loads(out)[0]["ok"] is False

    assert cli("models", "remove", "org/tiny", "--force")[0] == 0
    assert json.loads(cli("models", "list", "--json")[1]) == []
    assert "No models" in cli("models", "list")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("models", "import", "/nowhere", "--id", "a/b"), 1, "does not exist"),
        (("models", "verify", "a/b"), 1, "not in the store"),
        (("models", "remove", "a/b", "--force"), 1, "not in the store"),
        (("models", "remove", "../b", "--version", "..", "--force"), 1, "error"),
        (("models", "import", "/nowhere"), EX_USAGE, "--id"),
        (("models", "fly"), EX_USAGE, "fly"),
        (("--fly",), EX_USAGE, "fly"),
    ],
)
def test_wrong_arguments_and_missing_models_are_plain_errors(cli, arguments, code, named):
    got, _, err = cli(*arguments)
    assert got == code
    assert named in err
    assert "Traceback" not in err


def test_other_bytes_under_the_same_version_are_refused(cli, tmp_path):
    source = model_folder(tmp_path)
    assert cli("models", "import", str(source), "--id", "a/b")[0] == 0
    (source / "config.json").write_text("{ }")
    code, _, err = cli("models", "import", str(source), "--id", "a/b")
    assert code == 1
    assert "exists with other bytes" in err


def test_a_gguf_file_that_is_none_is_refused(cli, tmp_path):
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUFnonsense")
    code, _, err = cli("models", "import", str(file), "--id", "a/b")
    assert code == 1
    assert "error:" in err


# identity and code


def test_the_identity_is_printed_and_stays(cli, home):
    first = json.loads(cli("identity", "--json")[1])["identity_key"]
    assert cli("identity")[1].strip() == first
    assert first == to_base64(identity.load_or_create(home.identity_key).public)


def test_the_code_release_is_measured_the_same_each_time(cli):
    code, out, _ = cli("code-release", "--json")
    release = json.loads(out)
    assert code == 0
    assert release["code_release"] == f"sha256:{release['runtime_hash']}"
    assert json.loads(cli("code-release", "--json")[1]) == release
    assert release["runtime_hash"] in cli("code-release")[1]


def test_the_version_and_the_help_are_printed(cli):
    assert cli("--version")[:2] == (0, f"{version('darkbloom-provider')}\n")
    code, out, _ = cli("--help")
    assert code == 0
    assert "doctor" in out
