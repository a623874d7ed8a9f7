"""`provider.toml`: what it may say, what is said about its mistakes, and who wins."""

from pathlib import Path

import pytest
from darkbloom_mesh.config import ConfigError
from darkbloom_provider import file_edit, provider_toml
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.file_keys import BY_PATH, KEYS
from darkbloom_provider.settings import load_settings, locate

FILE = Path("provider.toml")
WHOLE = """\
# My machine.
config_version = 1

[provider]
name = "studio"
memory_reserve_gb = 8

[backend]
enabled_models = ["org/a", "org/b"]
idle_timeout_mins = 0
max_concurrent = 4

[coordinator]
url = "router.example:443"
heartbeat_interval_secs = 2.5
private_only = true

[schedule]
enabled = true

[[schedule.windows]]
days = ["mon", "tue"]
start = "22:00"
end = "06:00"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "provider.toml"
    path.write_text(text)
    return path


def settings(folder: Path, text: str, **environ: str):
    return load_settings(environ, written(folder, text))


def test_a_file_sets_what_the_environment_leaves_open(tmp_path):
    found = settings(tmp_path, WHOLE, DARKBLOOM_PROVIDER_NAME="laptop")
    config = found.config
    assert config.name == "laptop"
    assert config.models == ("org/a", "org/b")
    assert (config.memory_reserve_gb, config.idle_timeout_mins) == (8.0, 0)
    assert (config.coordinator, config.heartbeat_interval_s) == ("router.example:443", 2.5)
    assert config.private_only is True
    assert found.sources["name"] == "environment"
    assert found.sources["coordinator"] == "file"
    assert found.sources["max_model_slots"] == "default"
    assert found.problems == ()
    assert found.file.schedule_enabled is True
    assert [str(window) for window in found.windows] == ["mon,tue 22:00-06:00"]


def test_a_file_that_is_not_there_says_nothing(tmp_path):
    found = load_settings({}, tmp_path / "none.toml")
    assert found.file.exists is False
    assert found.config.private_only is False
    assert set(found.sources.values()) == {"default"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[backend]\nidle_timeout_mins = "60"',
            "line 2: backend.idle_timeout_mins: must be a whole",
        ),
        ("[backend]\nidle_timeout_mins = true", "must be a whole number"),
        ("[backend]\nidle_timeout_mins = -1", "line 2: backend.idle_timeout_mins: below 0"),
        ("[provider]\n\nauto_update = 1", "line 3: provider.auto_update: must be true or false"),
        ('[backend]\nenabled_models = "org/a"', "must be a list of texts"),
        ('[backend]\nenabled_models = ["a,b"]', "may hold a comma"),
        ('[backend]\nengine = "magic"', "not one of mlx, scripted"),
        ('[coordinator]\nurl = "nowhere"', "line 2: coordinator.url: must be host:port"),
        ("[backend]\nmax_concurrent = 9", "at most 8 with the mlx engine"),
        ('[provider]\nmemory_reserve_gb = "4"', "must be a number"),
        ("config_version = 9", "newer darkbloom"),
        ('config_version = "x"', "whole number"),
        ('[schedule]\nenabled = "yes"', "line 2: schedule.enabled: must be true or false"),
        ("[schedule]\nwindows = 3", "must be a list of windows"),
        ('[[schedule.windows]]\ndays = "mon"\nstart = "1:00"\nend = "2:00"', "line 1: "),
        ('[[schedule.windows]]\ndays = ["mon"]\nstart = "1:00"\nend = "25:00"', "no time of day"),
        ("[[schedule.windows]]\nfrom = 3", "needs days, start and end"),
    ],
)
def test_a_wrong_value_is_named_with_its_line_and_its_default_holds(tmp_path, text, said):
    found = settings(tmp_path, text)
    [problem] = found.problems
    assert said in str(problem)
    assert found.config == load_settings({}, tmp_path / "none.toml").config


def test_a_wrong_value_does_not_take_the_others_with_it(tmp_path):
    found = settings(tmp_path, '[provider]\nname = "studio"\nauto_update = "no"\n')
    assert found.config.name == "studio"
    assert len(found.problems) == 1


@pytest.mark.parametrize("text", ["[coordinator\nprivate_only = true", "x = \x00", "a = 1\na = 2"])
def test_a_file_that_cannot_be_parsed_has_its_defaults_and_serves_only_its_owner(tmp_path, text):
    found = settings(tmp_path, text)
    [problem] = found.problems
    assert "not valid TOML" in str(problem)
    assert problem.line >= 1
    assert found.config.private_only is True


def test_a_private_only_that_cannot_be_read_holds(tmp_path):
    found = settings(tmp_path, '[coordinator]\nprivate_only = "yes"')
    assert found.config.private_only is True
    assert len(found.problems) == 1
    variable = {"DARKBLOOM_PROVIDER_PRIVATE_ONLY": "false"}
    assert load_settings(variable, tmp_path / "provider.toml").config.private_only is False


def test_bytes_that_are_no_text_and_a_folder_in_its_place_are_problems(tmp_path):
    path = tmp_path / "provider.toml"
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in str(load_settings({}, path).problems[0])
    assert "cannot be read" in str(load_settings({}, tmp_path).problems[0])
    path.write_bytes(b"#" * (provider_toml.MAX_BYTES + 1))
    assert "larger than" in str(load_settings({}, path).problems[0])


def test_windows_that_are_not_enabled_close_nothing(tmp_path):
    assert settings(tmp_path, WHOLE.replace("enabled = true", "enabled = false")).windows == ()


def test_unknown_and_retired_keys_are_told_apart_and_stop_nothing():
    found = provider_toml.parse(
        FILE,
        "[backend]\nport = 8100\nfoo = 1\nengine_v2_kv_backend = 'paged'\n"
        "[backend.engine_v2_max_concurrent_by_model]\nx = 3\n[gemma_optimizations]\nfast = true\n",
    )
    assert [str(one) for one in found.unknown] == ["line 3: backend.foo: no such key"]
    assert [one.key for one in found.retired] == [
        "backend.port",
        "backend.engine_v2_kv_backend",
        "backend.engine_v2_max_concurrent_by_model",
        "gemma_optimizations",
    ]
    assert found.problems == ()


def test_a_wrong_environment_is_not_blamed_on_the_file(tmp_path):
    with pytest.raises(ConfigError, match="DARKBLOOM_PROVIDER_NOPE"):
        settings(tmp_path, WHOLE, DARKBLOOM_PROVIDER_NOPE="1")


def test_a_home_of_its_own_has_a_file_of_its_own():
    usual = Path("~/.config/darkbloom/provider.toml").expanduser()
    assert locate({}) == usual
    assert locate({"DARKBLOOM_PROVIDER_HOME": "/h"}) == Path("/h/provider.toml")
    both = {"DARKBLOOM_PROVIDER_HOME": "/h", "DARKBLOOM_PROVIDER_CONFIG": "/c.toml"}
    assert locate(both) == Path("/c.toml")
    assert locate(both, Path("/x.toml")) == Path("/x.toml")


def test_each_key_survives_being_typed_written_and_read():
    for key in KEYS:
        default = provider_toml._kind(key.field)
        typed = {bool: "true", int: "1", float: "1.5"}.get(default, "mlx")
        value = provider_toml.from_text(key.field, typed)
        assert provider_toml.as_text(key.field, value) == typed
    assert len(BY_PATH) == len(KEYS)


def test_an_edit_keeps_comments_order_and_everything_else(tmp_path):
    path = written(tmp_path, WHOLE)
    file_edit.edit(path, {"backend.idle_timeout_mins": 30, "provider.auto_update": False})
    text = path.read_text()
    assert text.startswith("# My machine.\nconfig_version = 1\n")
    assert "idle_timeout_mins = 30" in text
    found = provider_toml.read(path)
    assert found.values["auto_update"] == "false"
    assert found.values["models"] == "org/a,org/b"
    assert len(found.windows) == 1
    file_edit.edit(path, {"backend.idle_timeout_mins": 0, "provider.auto_update": None})
    assert path.read_text() == WHOLE


def test_a_first_edit_makes_the_file_and_dates_it(tmp_path):
    path = tmp_path / "new" / "provider.toml"
    rows = ({"days": ["mon"], "start": "22:00", "end": "06:00"},)
    file_edit.edit(path, {"schedule.enabled": True, "schedule.windows": rows, "a.b": None})
    found = provider_toml.read(path)
    assert path.read_text().startswith("config_version = 1\n")
    assert found.schedule_enabled is True
    assert found.windows[0].days == (0,)
    assert (found.problems, found.unknown) == ((), ())
    assert [one.name for one in path.parent.iterdir()] == ["provider.toml"]


def test_a_file_that_is_broken_is_never_overwritten(tmp_path):
    path = written(tmp_path, "[broken")
    with pytest.raises(ProviderError, match="left as it is"):
        file_edit.edit(path, {"provider.name": "x"})
    assert path.read_text() == "[broken"
    path.write_text("provider = 3\n")
    with pytest.raises(ProviderError, match="no table"):
        file_edit.edit(path, {"provider.name": "x"})


def test_an_edit_through_a_link_changes_what_it_points_to(tmp_path):
    real = written(tmp_path, WHOLE)
    link = tmp_path / "link.toml"
    link.symlink_to(real)
    file_edit.edit(link, {"provider.name": "mini"})
    assert link.is_symlink()
    assert 'name = "mini"' in real.read_text()
