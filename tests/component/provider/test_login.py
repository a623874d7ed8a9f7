"""`darkbloom login`, `whoami`, `logout`, against a gateway that checks proofs."""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from darkbloom_edge.signatures import to_base64
from darkbloom_provider import identity
from darkbloom_provider.cli import run
from darkbloom_provider.home import Home

from tests.fakes.gateway import ACCOUNT, TOKEN, FakeGateway, error

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway().serving() as found:
        yield found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path / "home")


@pytest.fixture
def darkbloom(
    gateway: FakeGateway,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Say:
    """Run a command in this process; return exit code, output and errors."""
    monkeypatch.setenv("DARKBLOOM_ENV", "development")
    monkeypatch.setenv("DARKBLOOM_PROVIDER_HOME", str(home.root))
    monkeypatch.setenv("DARKBLOOM_PROVIDER_GATEWAY", gateway.url)
    monkeypatch.setenv("DARKBLOOM_PROVIDER_NAME", "studio")

    def say(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        output = capsys.readouterr()
        return code, output.out, output.err

    return say


def key_of(home: Home) -> str:
    return to_base64(identity.load_or_create(home.identity_key).public)


def test_a_login_shows_a_code_keeps_the_token_and_links_the_machine(
    darkbloom: Say, gateway: FakeGateway, home: Home
) -> None:
    code, output, _ = darkbloom("login")

    assert code == 0
    assert "ABCD-EFGH" in output
    assert "https://console.example/link" in output
    assert "curl" not in output
    assert ACCOUNT in output
    assert TOKEN not in output
    assert gateway.linked == {key_of(home): "studio"}
    assert home.login.stat().st_mode & 0o777 == 0o600
    assert json.loads(home.login.read_text())["token"] == TOKEN


def test_a_development_mesh_shows_the_line_that_approves_quoted_for_a_shell(
    darkbloom: Say, gateway: FakeGateway
) -> None:
    told = {
        "device_code": "d" * 64,
        "user_code": "AB'$(x)",
        "verification_uri": "http://localhost:3000/link",
        "expires_in": 900,
        "interval": 1,
    }
    gateway.answers["POST /v1/device/code"] = [(200, told)]
    code, output, _ = darkbloom("login")

    assert code == 0
    line = next(each for each in output.splitlines() if "curl" in each)
    words = shlex.split(line)
    assert words[2].endswith("/v1/device/approve")
    assert words[2].startswith("http://127.0.0.1:")
    assert json.loads(words[-1]) == {"user_code": "AB'$(x)"}


def test_json_is_one_object_a_line(darkbloom: Say, home: Home) -> None:
    code, output, _ = darkbloom("login", "--json")

    first, second = map(json.loads, output.splitlines())
    assert code == 0
    assert (first["event"], first["user_code"]) == ("code", "ABCD-EFGH")
    assert second == {"event": "linked", "account_id": ACCOUNT, "identity_key": key_of(home)}


def test_a_second_login_only_links_again(darkbloom: Say, gateway: FakeGateway) -> None:
    darkbloom("login")
    gateway.calls.clear()

    assert darkbloom("login")[0] == 0
    assert "POST /v1/device/code" not in gateway.calls
    assert "POST /v1/provider/link" in gateway.calls


def test_a_login_that_counts_no_more_is_replaced(darkbloom: Say, gateway: FakeGateway) -> None:
    darkbloom("login")
    gateway.answers["GET /v1/provider/token"] = [error(401, "authentication_error")]

    assert darkbloom("login")[0] == 0
    assert gateway.calls.count("POST /v1/device/code") == 2


def test_it_waits_and_slows_down_as_it_is_told(darkbloom: Say, gateway: FakeGateway) -> None:
    gateway.answers["POST /v1/device/token"] = [(200, {"status": "authorization_pending"})]

    assert darkbloom("login")[0] == 0
    assert gateway.calls.count("POST /v1/device/token") == 2


@pytest.mark.parametrize(
    ("route", "answer", "words"),
    [
        ("POST /v1/device/token", error(403, "access_denied"), "refused this machine"),
        ("POST /v1/device/token", error(410, "expired_token"), "has expired"),
        ("POST /v1/device/token", error(404, "invalid_grant"), "has expired"),
        ("POST /v1/device/code", error(429, "rate_limit_exceeded", "wait"), "429"),
        ("POST /v1/device/code", (200, {"user_code": 1}), "not understood"),
        ("POST /v1/device/code", (200, b"<html>"), "not understood"),
        ("POST /v1/device/code", (502, []), "not understood"),
        ("POST /v1/provider/link", error(409, "conflict"), "another account"),
        ("POST /v1/provider/link/challenge", (200, {"nonce": "AA=="}), "not understood"),
        ("POST /v1/provider/link", error(400, "invalid_request", "\x1b[2J"), "no reason given"),
    ],
)
def test_a_failure_is_one_sentence_and_exit_code_1(
    darkbloom: Say, gateway: FakeGateway, route: str, answer: tuple[int, object], words: str
) -> None:
    gateway.answers[route] = [answer]

    code, _, errors = darkbloom("login")

    assert code == 1
    assert words in errors
    assert "Traceback" not in errors
    assert TOKEN not in errors


def test_whoami_says_who_and_fails_where_there_is_nobody(
    darkbloom: Say, gateway: FakeGateway, home: Home
) -> None:
    code, output, _ = darkbloom("whoami", "--json")
    assert (code, json.loads(output)) == (1, {"logged_in": False})
    darkbloom("login")

    code, output, _ = darkbloom("whoami", "--json")
    assert code == 0
    assert json.loads(output) == {
        "logged_in": True,
        "account_id": ACCOUNT,
        "label": "device-ABCD-EFGH",
        "machine_name": "m",
        "gateway": gateway.url,
        "identity_key": key_of(home),
    }
    assert ACCOUNT in darkbloom("whoami")[1]

    gateway.revoked = True
    code, _, errors = darkbloom("whoami")
    assert code == 1
    assert "darkbloom login" in errors


def test_logout_revokes_and_forgets(darkbloom: Say, gateway: FakeGateway, home: Home) -> None:
    darkbloom("login")

    assert darkbloom("logout")[0] == 0
    assert gateway.revoked
    assert not home.login.exists()
    assert darkbloom("logout") == (0, "This machine is not logged in.\n", "")


def test_logout_keeps_a_login_that_it_could_not_revoke_unless_forced(
    darkbloom: Say, gateway: FakeGateway, home: Home
) -> None:
    darkbloom("login")
    gateway.answers["DELETE /v1/provider/token"] = [error(503, "service_unavailable")] * 2

    assert darkbloom("logout")[0] == 1
    assert home.login.exists()
    assert darkbloom("logout", "--force")[0] == 0
    assert not home.login.exists()


def test_a_login_that_others_can_read_is_refused(darkbloom: Say, home: Home) -> None:
    darkbloom("login")
    home.login.chmod(0o644)

    code, _, errors = darkbloom("whoami")
    assert code == 1
    assert "chmod 600" in errors

    home.login.chmod(0o600)
    home.login.write_text("[]")
    assert "is not a login" in darkbloom("whoami")[2]


def test_without_a_gateway_it_says_what_to_set(
    darkbloom: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DARKBLOOM_PROVIDER_GATEWAY")
    assert "coordinator.gateway" in darkbloom("login")[2]

    monkeypatch.setenv("DARKBLOOM_PROVIDER_GATEWAY", "http://127.0.0.1:1")
    assert "does not answer" in darkbloom("login")[2]
    monkeypatch.setenv("DARKBLOOM_ENV", "production")
    assert darkbloom("login")[0] == 78
