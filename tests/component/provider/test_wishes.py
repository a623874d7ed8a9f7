"""`config`, `schedule` and `idle`: what the owner wants, kept in `provider.toml`."""

import io
import json
import tomllib

import pytest

EX_USAGE = 64


def kept(home) -> dict:
    return tomllib.loads((home.root / "provider.toml").read_text())


# config


def test_config_shows_what_holds_and_where_it_comes_from(cli, home, monkeypatch):
    monkeypatch.setenv("DARKBLOOM_PROVIDER_NAME", "laptop")
    assert cli("config", "set", "backend.max_model_slots", "2")[0] == 0
    code, out, _ = cli("config", "show")
    assert code == 0
    assert "max_model_slots = 2  (file)" in out
    assert 'name = "laptop"  (environment)' in out
    rows = {row["key"]: row for row in json.loads(cli("config", "show", "--json")[1])["settings"]}
    assert rows["backend.max_model_slots"]["value"] == 2
    assert rows["provider.name"]["variable"] == "DARKBLOOM_PROVIDER_NAME"
    assert rows["coordinator.private_only"]["source"] == "default"


def test_config_with_a_mistake_is_shown_and_fails(cli, home):
    (home.root / "provider.toml").write_text("[backend]\nmax_model_slots = 0\n")
    code, out, _ = cli("config", "show")
    assert code == 1
    assert "max_model_slots = 3" in out
    assert "line 2: backend.max_model_slots: below 1" in out
    code, out, _ = cli("config", "show", "--json")
    assert code == 1
    assert json.loads(out)["problems"] == ["line 2: backend.max_model_slots: below 1"]


@pytest.mark.parametrize(
    ("key", "value", "code", "named"),
    [
        ("backend.max_model_slots", "0", EX_USAGE, "below 1"),
        ("backend.max_model_slots", "many", EX_USAGE, "whole number"),
        ("provider.memory_reserve_gb", "lots", EX_USAGE, "must be a number"),
        ("coordinator.private_only", "perhaps", EX_USAGE, "true or false"),
        ("coordinator.url", "nowhere", EX_USAGE, "host:port"),
        ("backend.engine", "magic", EX_USAGE, "mlx, scripted"),
        ("backend.foo", "1", 1, "no key backend.foo"),
    ],
)
def test_config_refuses_what_cannot_hold_and_writes_nothing(cli, home, key, value, code, named):
    got, _, err = cli("config", "set", key, value)
    assert got == code
    assert named in " ".join(err.split())
    assert not (home.root / "provider.toml").exists()


def test_config_sets_lists_and_unsets(cli, home):
    assert cli("config", "set", "backend.enabled_models", "org/a,org/b")[0] == 0
    assert kept(home)["backend"]["enabled_models"] == ["org/a", "org/b"]
    assert cli("config", "unset", "backend.enabled_models")[0] == 0
    assert kept(home)["backend"] == {}
    (home.root / "provider.toml").write_text("[backend]\nport = 1\n")
    assert cli("config", "unset", "backend.port")[0] == 0
    assert kept(home)["backend"] == {}


def test_another_file_can_be_named(cli, tmp_path, home):
    other = tmp_path / "other.toml"
    assert cli("-c", str(other), "config", "set", "provider.name", "mini")[0] == 0
    assert cli("--config", str(other), "config", "path")[1].strip() == str(other)
    assert tomllib.loads(other.read_text())["provider"]["name"] == "mini"
    found = json.loads(cli("config", "path", "--json")[1])
    assert found == {"path": str(home.root / "provider.toml"), "exists": False}


# schedule


def test_windows_are_added_shown_removed_and_switched_off(cli, home):
    code, out, err = cli("schedule", "--add", "mon-fri 22:00-06:00", "--add", "weekend")
    assert code == 0, err
    assert "1  mon,tue,wed,thu,fri 22:00-06:00  (to the next day)" in out
    assert "darkbloom restart" in out
    assert kept(home)["schedule"]["enabled"] is True

    code, out, _ = cli("schedule", "--show")
    assert code == 0
    assert "2  sat,sun 00:00-00:00" in out
    assert "Now " in out

    assert cli("schedule", "--remove", "1")[0] == 0
    assert [row["days"] for row in kept(home)["schedule"]["windows"]] == [["sat", "sun"]]
    code, out, _ = cli("schedule", "--disable")
    assert "open always" in out
    said = json.loads(cli("schedule", "--json")[1])
    assert (said["enabled"], said["open"], said["until"]) == (False, True, None)
    assert said["windows"] == [{"days": ["sat", "sun"], "start": "00:00", "end": "00:00"}]
    assert cli("schedule", "--enable")[0] == 0
    assert kept(home)["schedule"]["enabled"] is True


@pytest.mark.parametrize(
    ("flags", "code", "named"),
    [
        (("--add", "moon 1:00-2:00"), EX_USAGE, "no day"),
        (("--add", "mon"), EX_USAGE, "such as mon-fri"),
        (("--remove", "1"), 1, "there is no window 1"),
    ],
)
def test_a_window_that_is_none_is_refused(cli, home, flags, code, named):
    got, _, err = cli("schedule", *flags)
    assert got == code
    assert named in " ".join(err.split())
    assert not (home.root / "provider.toml").exists()


def test_on_a_terminal_windows_are_edited_until_enter(cli, home, monkeypatch):
    typed = io.StringIO("mon 22:00-06:00\nnonsense\n-9\ntue 1:00-2:00\n-1\noff\non\n\n")
    typed.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", typed)
    code, out, _ = cli("schedule")
    assert code == 0
    assert "write days and times" in out
    assert "there is no window 9" in out
    assert kept(home)["schedule"] == {
        "enabled": True,
        "windows": [{"days": ["tue"], "start": "01:00", "end": "02:00"}],
    }


def test_a_pipe_is_shown_the_windows_and_asked_nothing(cli, home):
    code, out, _ = cli("schedule")
    assert code == 0
    assert "No windows." in out
    assert "open always" in out
    assert not (home.root / "provider.toml").exists()


# idle


def test_the_idle_policy_is_shown_kept_and_bounded(cli, home, monkeypatch):
    assert "after 60 min without a request (by default)" in cli("idle", "status")[1]
    code, out, _ = cli("idle", "unload-after", "30")
    assert code == 0
    assert "after 30 min" in out
    assert json.loads(cli("idle", "status", "--json")[1]) == {
        "idle_timeout_mins": 30,
        "source": "file",
    }
    assert cli("idle", "keep-loaded", "--json")[0] == 0
    assert kept(home)["backend"]["idle_timeout_mins"] == 0
    assert "stay in memory (by provider.toml)" in cli("idle", "status")[1]
    for minutes in ("0", "10081", "soon"):
        assert cli("idle", "unload-after", minutes)[0] == EX_USAGE

    monkeypatch.setenv("DARKBLOOM_PROVIDER_IDLE_TIMEOUT_MINS", "7")
    code, _, err = cli("idle", "unload-after", "30")
    assert code == 0
    assert "IDLE_TIMEOUT_MINS is set here and wins" in err
