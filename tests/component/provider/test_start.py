"""`darkbloom start` and whom it has never seen: what it asks, what it keeps, when it is silent."""

import io
import tomllib
from dataclasses import dataclass, field, replace

import pytest
from darkbloom_provider import hardware
from darkbloom_provider.account import Login, write_login
from darkbloom_provider.cli import beginning, start

from tests.component.provider.store import place_folder
from tests.fakes.gateway import ACCOUNT, TOKEN, FakeGateway

EX_USAGE = 64


@dataclass
class Service:
    """The background service, as far as `start` knows it."""

    started: list[tuple[list[str], float, bool]] = field(default_factory=list)

    def start(self, arguments: list[str], *, timeout_s: float, force: bool) -> None:
        self.started.append((arguments, timeout_s, force))


@pytest.fixture
def service(monkeypatch, home) -> Service:
    facts = replace(hardware.detect(), memory_gb=32.0)
    monkeypatch.setattr(hardware, "detect", lambda: facts)
    found = Service()
    monkeypatch.setattr(start, "background", lambda: found)
    return found


@pytest.fixture
def typed(monkeypatch):
    """Sit in front of the terminal and type these lines."""

    def sit(*lines: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        monkeypatch.setattr(beginning, "interactive", lambda: True)

    return sit


def kept(home) -> dict:
    return tomllib.loads((home.root / "provider.toml").read_text())


def test_without_a_terminal_nothing_is_asked_and_the_service_starts(cli, home, service):
    place_folder(home, "org/a")
    code, out, err = cli("start", "--timeout", "5")
    assert code == 0, err
    assert "By starting you accept" in out
    assert "Started in the background" in out
    assert service.started == [([], 5.0, False)]
    assert not (home.root / "provider.toml").exists()


def test_flags_answer_the_questions_and_the_choice_is_kept(cli, home, service, typed):
    place_folder(home, "org/a")
    place_folder(home, "org/b")
    typed()
    code, _, err = cli(
        *("start", "--model", "org/b", "--idle-timeout", "0", "--name", "studio", "--force"),
        *("--local-endpoint", "--port", "9000", "--no-auth", "--private-only"),
    )
    assert code == 0, err
    assert kept(home)["backend"] == {"enabled_models": ["org/b"], "idle_timeout_mins": 0}
    [(arguments, _, force)] = service.started
    assert force is True
    assert arguments == [
        *("--name", "studio", "--private-only", "--local-endpoint"),
        *("--bind", "127.0.0.1", "--port", "9000", "--no-auth"),
    ]


def test_all_serves_every_model_and_excludes_a_choice(cli, home, service):
    place_folder(home, "org/a")
    assert cli("start", "--all")[0] == 0
    assert kept(home)["backend"]["enabled_models"] == []
    assert cli("start", "--all", "--model", "org/a")[0] == EX_USAGE
    assert len(service.started) == 1


def test_the_first_start_asks_for_models_and_idle_memory_once(cli, home, service, typed):
    place_folder(home, "org/a")
    place_folder(home, "org/b")
    typed("9", "n", "", "2", "", "3", "0", "90")
    code, out, err = cli("start")
    assert code == 0, err
    assert kept(home)["backend"] == {"enabled_models": ["org/b"], "idle_timeout_mins": 90}
    assert "type numbers from 1 to 2" in out
    assert "choose at least one model" in out
    assert "Chosen: 2; loaded together" in out
    assert len(service.started) == 1

    typed()
    assert cli("start")[0] == 0
    assert len(service.started) == 2
    typed("a", "", "1")
    assert cli("start", "--pick")[0] == 0
    assert kept(home)["backend"] == {"enabled_models": ["org/a", "org/b"], "idle_timeout_mins": 0}


def test_the_picker_fits_eighty_columns(cli, home, service, typed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    place_folder(home, "mlx-community/a-model-with-quite-a-long-name-4bit")
    typed("", "2")
    code, out, _ = cli("start")
    assert code == 0
    table = out[out.index("model") : out.index("Chosen:")]
    assert max(map(len, table.splitlines())) <= 80
    assert service.started


def test_the_first_start_offers_the_login(cli, home, service, typed, monkeypatch):
    place_folder(home, "org/a")
    with FakeGateway().serving() as gateway:
        monkeypatch.setenv("DARKBLOOM_PROVIDER_GATEWAY", gateway.url)
        typed("y", "", "2")
        code, out, err = cli("start")
        assert code == 0, err
        assert "ABCD-EFGH" in out
        assert f"earns for {ACCOUNT}" in out
        assert len(gateway.linked) == 1
        typed()
        assert "earns for nobody" not in cli("start")[1]
    assert len(service.started) == 2


def test_a_login_that_is_put_off_is_named_and_stops_nothing(cli, home, service, typed, monkeypatch):
    place_folder(home, "org/a")
    monkeypatch.setenv("DARKBLOOM_PROVIDER_GATEWAY", "http://127.0.0.1:1")
    typed("n", "", "2")
    code, out, _ = cli("start")
    assert code == 0
    assert "Later: darkbloom login" in out
    assert service.started


def test_a_machine_that_cannot_serve_is_told_before_it_is_asked(
    cli, home, service, typed, monkeypatch
):
    facts = replace(hardware.detect(), memory_gb=4.0)
    monkeypatch.setattr(hardware, "detect", lambda: facts)
    place_folder(home, "org/a")
    typed()
    code, _, err = cli("start")
    assert code == 1
    assert "hardware" in err
    assert "8 GB or more" in err
    assert service.started == []


@pytest.mark.parametrize("flags", [(), ("--model", "org/none")])
def test_nothing_to_serve_is_no_start(cli, service, flags):
    code, _, err = cli("start", *flags)
    assert code == 1
    assert "no models selected" in err
    assert "models download" in err
    assert service.started == []


def test_mistakes_of_the_file_are_named_and_stop_nothing(cli, home, service):
    place_folder(home, "org/a")
    text = '[provider]\nauto_update = "no"\n[backend]\nport = 8100\n'
    (home.root / "provider.toml").write_text(text)
    code, _, err = cli("start")
    assert code == 0
    assert "line 2: provider.auto_update: must be true or false" in err
    assert "line 4: backend.port: has no use any more" in err
    assert service.started


def test_a_wrong_flag_is_no_start(cli, home, service):
    place_folder(home, "org/a")
    code, _, err = cli("start", "--coordinator", "nowhere")
    assert code == 1
    assert "must be host:port" in err
    assert cli("start", "--idle-timeout", "20000")[0] == EX_USAGE
    code, _, err = cli("start", "--local", "--local-endpoint")
    assert code == 1
    assert "exclude each other" in err
    assert service.started == []


def test_a_login_that_is_there_is_not_offered_again(cli, home, service, typed, monkeypatch):
    place_folder(home, "org/a")
    monkeypatch.setenv("DARKBLOOM_PROVIDER_GATEWAY", "http://127.0.0.1:1")
    login = Login(gateway="http://127.0.0.1:1", account_id=ACCOUNT, token=TOKEN)
    write_login(home.login, login)
    typed("", "2")
    code, out, _ = cli("start")
    assert code == 0
    assert "earns for nobody" not in out
    assert service.started


def entry(build: str, size: int) -> dict:
    version = {
        "version": "1",
        "aggregate_sha256": "a" * 64,
        "identity_sha256": "b" * 64,
        "size_bytes": size,
    }
    return {"id": build, "version": "1", "versions": [version]}


def test_the_picker_offers_what_the_catalog_has_and_fits(cli, home, service, typed, monkeypatch):
    place_folder(home, "org/a")
    models = [entry("org/new", 1 << 30), entry("org/huge", 1 << 42)]
    with FakeGateway().serving() as gateway:
        monkeypatch.setenv("DARKBLOOM_PROVIDER_GATEWAY", gateway.url)
        gateway.answers["GET /v1/models/catalog?type=text"] = [(200, {"models": models})] * 2
        typed("n", "", "2")
        code, out, err = cli("start")
        assert code == 0, err
        assert "org/new" in out
        assert "org/huge" not in out
        assert kept(home)["backend"]["enabled_models"] == ["org/a"]

        # What cannot be fetched is not kept as chosen, and nothing starts.
        typed("n", "2", "", "2")
        code, _, err = cli("start", "--pick")
    assert code == 1
    assert "error:" in err
    assert kept(home)["backend"]["enabled_models"] == ["org/a"]
    assert len(service.started) == 1
