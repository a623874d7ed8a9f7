"""`darkbloom doctor`: each planted fault is named, with something to do, and nothing else is."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from darkbloom_mesh.testing import serve_ephemeral
from darkbloom_provider import checks, hardware, identity, lock, state
from darkbloom_provider.account import Login, write_login
from darkbloom_provider.checks.model import AREAS
from darkbloom_provider.cli import run
from darkbloom_provider.home import Home
from darkbloom_provider.service.control import Facts
from darkbloom_provider.service.guard import Watch

from tests.component.provider.store import place_folder
from tests.fakes.gateway import ACCOUNT, TOKEN, FakeGateway
from tests.fakes.provider_router import FakeRouter
from tests.unit.provider.test_mac_posture import ENROLLED, tool
from tests.unit.provider.test_mac_session import ADHOC, GLOBAL, GRAPHICS, LOGIN_WINDOW, SIGNED

BUILD = "org/tiny"
PREFIX = "DARKBLOOM_PROVIDER_"
MAC_ONLY = {
    *("metal gpu", "sip", "macos", "secure boot", "authenticated root", "rdma", "mdm enrollment"),
    *("hardened runtime", "mdm verification", "console session", "automatic login"),
    "auto-logout on idle",
}
ON_EVERY_SYSTEM = {
    *("hardware", "metal gpu", "config", "huggingface cache", "local mlx models", "sip"),
    *("debugger", "binary hash", "account link", "sleep prevention", "active se key"),
    *("coordinator health", "minimum version", "coordinator trust", "trust level", "daemon"),
    *("daemon connected", "daemon state freshness", "recent model load", "model fit"),
    *("kv backend posture", "kv backend crash-loop guard", "competing inference"),
    *("usage reporting", "up to date", "runtime integrity", "stream transport"),
}
"""Stable names that any platform prints beside a registered agent."""

SIGNATURE = f"codesign --display --verbose=2 {Path(sys.executable).resolve()}"


@dataclass
class Machine:
    """A machine that is well: linked, registered, with a model that renders."""

    home: Home
    gateway: FakeGateway
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    running: bool = True
    state: dict[str, object] = field(default_factory=dict)

    def set(self, name: str, value: str) -> None:
        """Set a variable of the agent."""
        self.monkeypatch.setenv(PREFIX + name, value)

    def write(self, text: str) -> None:
        """Write its provider.toml."""
        (self.home.root / "provider.toml").write_text(text)

    async def doctor(self, *flags: str) -> tuple[int, str, str]:
        """Run the command as its own thread, so that neighbours can answer."""
        with ExitStack() as stack:
            if self.running:
                state.write(self.home.state, snapshot(**self.state))
                stack.enter_context(lock.single_instance(self.home.lock))
            code = await asyncio.to_thread(run, ["doctor", *flags])
        return code, *self.capsys.readouterr()

    async def findings(self) -> dict[str, dict[str, str]]:
        """Return what is not well, without what only a Mac has."""
        _, out, err = await self.doctor("--json")
        assert not err
        return {
            found["name"]: found
            for found in json.loads(out)
            if found["result"] != "pass" and found["name"] not in MAC_ONLY
        }


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - compared by a real command


def snapshot(**changes: object) -> state.AgentState:
    written = now().isoformat()
    fields: dict[str, object] = {
        "pid": os.getpid(),
        "version": "0.1.0",
        "started_at": written,
        "updated_at": written,
        "coordinator": "router:8443",
        "connection": "registered",
        "engine": "mlx-lm",
        "account_id": ACCOUNT,
        "trust_level": "hardware",
        "trust_status": "online",
        "admission": "public",
        "accepted_models": (BUILD,),
    }
    return state.AgentState(**{**fields, **changes})


@pytest.fixture
async def machine(home, monkeypatch, capsys) -> AsyncIterator[Machine]:
    facts = replace(hardware.detect(), memory_gb=32.0)
    monkeypatch.setattr(hardware, "detect", lambda: facts)
    monkeypatch.setattr(checks, "free_bytes", lambda _path: 100 << 30)
    monkeypatch.setattr(checks, "process_names", list)
    monkeypatch.setenv("HF_HOME", str(home.root / "huggingface"))
    for name in ("HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    identity.load_or_create(home.identity_key)
    with FakeGateway().serving() as gateway:
        write_login(home.login, Login(gateway=gateway.url, account_id=ACCOUNT, token=TOKEN))
        async with serve_ephemeral(FakeRouter().register) as target:
            found = Machine(home, gateway, monkeypatch, capsys)
            found.set("GATEWAY", gateway.url)
            found.set("COORDINATOR", target)
            found.set("COORDINATOR_TLS", "false")
            yield found


def no_router(machine: Machine) -> None:
    machine.set("COORDINATOR", "127.0.0.1:1")


def wrong_clock(machine: Machine) -> None:
    machine.gateway.ahead_s = 600


def expired_token(machine: Machine) -> None:
    machine.gateway.revoked = True


def low_disk(machine: Machine) -> None:
    machine.monkeypatch.setattr(checks, "free_bytes", lambda _path: 1 << 30)


def bad_hash(machine: Machine) -> None:
    [weights] = machine.home.models.rglob("model.safetensors")
    weights.write_bytes(b"weightz")


def missing_template(machine: Machine) -> None:
    place_folder(machine.home, "org/mute", template=False)


def old_version(machine: Machine) -> None:
    machine.state["min_version"] = "9.0.0"


def closed_schedule(machine: Machine) -> None:
    day = f"{now() + timedelta(days=3):%a}".lower()
    machine.write(
        "[schedule]\nenabled = true\n[[schedule.windows]]\n"
        f'days = ["{day}"]\nstart = "03:00"\nend = "03:30"\n'
    )


def private_only(machine: Machine) -> None:
    machine.write("[coordinator]\nprivate_only = true\n")


def no_model_fits(machine: Machine) -> None:
    facts = replace(hardware.detect(), memory_gb=8.0)
    machine.monkeypatch.setattr(hardware, "detect", lambda: facts)


def untrusted(machine: Machine) -> None:
    machine.state |= {
        "trust_status": "untrusted",
        "trust_reason": "challenge_failed",
        "trust_remedy": "start the agent again and keep the machine awake",
    }


def crash_loop(machine: Machine) -> None:
    watch = Watch(version="0.1.0", tripped=True)
    machine.home.watchdog_state.write_bytes(msgspec.json.encode(watch))


def unreadable_hub(machine: Machine) -> None:
    (machine.home.root / "huggingface").mkdir()
    (machine.home.root / "huggingface" / "hub").write_text("no folder")


def no_room_for_kv(machine: Machine) -> None:
    slot = state.SlotView(
        model=BUILD, state="idle", running=0, waiting=0, budget_used=0, budget_max=0
    )
    machine.state["slots"] = (slot,)


@pytest.mark.parametrize(
    ("plant", "name", "result", "seen", "fix"),
    [
        (no_router, "stream transport", "fail", "connection refused", "coordinator.url"),
        (wrong_clock, "clock", "fail", "behind", "automatic time"),
        (expired_token, "account link", "fail", "expired or was revoked", "`darkbloom login`"),
        (low_disk, "disk space", "fail", "1.0 GB free", "`darkbloom models remove`"),
        (bad_hash, "model integrity", "fail", BUILD, f"models download {BUILD}"),
        (missing_template, "template render", "fail", "org/mute: no chat template", "org/mute"),
        (old_version, "minimum version", "fail", "takes 9.0.0", "`darkbloom update`"),
        (closed_schedule, "schedule", "warn", "closed now", "schedule --disable"),
        (private_only, "private only", "warn", "only your own", "private_only false"),
        (no_model_fits, "model fit", "fail", "has 8 GB", "models catalog"),
        (untrusted, "trust level", "fail", "challenge_failed", "keep the machine awake"),
        (crash_loop, "kv backend crash-loop guard", "fail", "3 times", "`darkbloom start`"),
        (unreadable_hub, "huggingface cache", "warn", "not a directory", "chown"),
        (no_room_for_kv, "kv backend posture", "warn", f"KV of {BUILD}", "fewer or smaller"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_a_planted_fault_is_named_with_a_fix_and_alone(
    machine, plant: Callable[[Machine], None], name, result, seen, fix
):
    place_folder(machine.home, BUILD)
    plant(machine)
    found = await machine.findings()
    assert list(found) == [name]
    assert found[name]["result"] == result
    assert seen in found[name]["detail"]
    assert fix in found[name]["fix"]
    assert found[name]["area"] in AREAS


async def test_a_taken_port_is_named_with_its_number(machine):
    place_folder(machine.home, BUILD)
    machine.running = False
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        machine.set("METRICS_LISTEN", f"127.0.0.1:{port}")
        found = await machine.findings()
    assert set(found) == {"port", "daemon"}
    assert f"127.0.0.1:{port} is taken" in found["port"]["detail"]
    assert f"lsof -i :{port}" in found["port"]["fix"]


async def test_a_machine_that_is_well_has_no_finding(machine):
    place_folder(machine.home, BUILD)
    assert await machine.findings() == {}
    code, out, _ = await machine.doctor()
    assert code == 0
    assert "✓ models" in out
    assert "0 failed" in out
    # In a pipe each finding is one line, without colours or boxes.
    assert "\x1b" not in out
    assert "│" not in out


async def test_every_stable_name_is_printed_as_text_and_as_json(machine):
    place_folder(machine.home, BUILD)
    machine.state["protections"] = {"anti_debug_enabled": True, "core_dumps_disabled": True}
    facts = Facts(
        pid=1,
        generation="g",
        version="0.1.0",
        phase="serving",
        authorised=True,
        sleep_prevented=True,
    )
    machine.monkeypatch.setattr(checks, "ask", lambda _path, _question, timeout_s: facts)
    wanted = ON_EVERY_SYSTEM
    for platform in ("linux", "darwin"):
        machine.monkeypatch.setattr(checks, "platform_name", lambda name=platform: name)
        machine.monkeypatch.setattr(checks, "run_tool", lambda _command: "")
        _, out, _ = await machine.doctor("--json")
        named = {found["name"]: found for found in json.loads(out)}
        assert wanted - set(named) == set()
        # What is not well says what to do, and what is well has nothing to do.
        assert all(bool(one["fix"]) == (one["result"] != "pass") for one in named.values())
        _, text, _ = await machine.doctor()
        assert all(f" {name}: {one['detail']}" in text for name, one in named.items())
        wanted = ON_EVERY_SYSTEM | MAC_ONLY


async def test_a_mac_that_is_well_has_no_finding_and_one_that_is_open_has_its_own(machine):
    place_folder(machine.home, BUILD)
    uid = os.getuid()
    said = tool() | {
        "stat -f %u %Su /dev/console": f"{uid} ada\n",
        "defaults read /Library/Preferences/com.apple.loginwindow": LOGIN_WINDOW,
        "defaults read /Library/Preferences/.GlobalPreferences": "{\n    Country = US;\n}\n",
        "system_profiler SPDisplaysDataType": GRAPHICS,
        "profiles status -type enrollment": ENROLLED,
        SIGNATURE: SIGNED,
    }
    facts = replace(hardware.detect(), os_version="26.1")
    machine.monkeypatch.setattr(hardware, "detect", lambda: facts)
    machine.monkeypatch.setattr(checks, "platform_name", lambda: "darwin")
    machine.monkeypatch.setattr(
        checks, "run_tool", lambda command: said[" ".join([Path(command[0]).name, *command[1:]])]
    )

    async def findings() -> set[str]:
        _, out, _ = await machine.doctor("--json")
        found = {one["name"] for one in json.loads(out) if one["result"] != "pass"}
        # Nobody sits at a screen as root.
        return found - (set() if uid else {"console session"})

    assert await findings() == set()
    said["defaults read /Library/Preferences/.GlobalPreferences"] = GLOBAL
    assert await findings() == {"auto-logout on idle"}
    said[SIGNATURE] = ADHOC
    assert await findings() == {"auto-logout on idle", "hardened runtime"}


async def test_a_new_machine_is_told_its_first_steps(machine):
    machine.running = False
    machine.home.login.unlink()
    machine.home.identity_key.unlink()
    found = await machine.findings()
    assert {name: one["result"] for name, one in found.items()} == {
        "local mlx models": "fail",
        "account link": "fail",
        "daemon": "fail",
        "active se key": "warn",
    }
    assert "models download" in found["local mlx models"]["fix"]
    assert "darkbloom login" in found["account link"]["fix"]


async def test_strict_fails_on_a_warning_and_plain_does_not(machine):
    place_folder(machine.home, BUILD)
    machine.state["admission"] = "owner"
    code, out, _ = await machine.doctor()
    assert code == 0
    assert "fix: public requests need hardware evidence" in out
    assert (await machine.doctor("--strict"))[0] == 1


async def test_a_file_with_a_mistake_is_named_by_line_and_key(machine):
    place_folder(machine.home, BUILD)
    machine.write('[backend]\nidle_timeout_mins = "soon"\nfoo = 1\n')
    found = await machine.findings()
    assert list(found) == ["config"]
    assert "line 2: backend.idle_timeout_mins: must be a whole number" in found["config"]["detail"]
    assert "line 3: backend.foo: no such key" in found["config"]["detail"]
    machine.write("[backend]\nport = 8100\n")
    retired = (await machine.findings())["config"]
    assert retired["result"] == "warn"
    assert retired["fix"] == "`darkbloom config unset backend.port`"


async def test_what_answers_but_is_no_router_is_told_apart(machine):
    place_folder(machine.home, BUILD)
    machine.set("COORDINATOR", machine.gateway.url.removeprefix("http://"))
    found = await machine.findings()
    assert "not with HTTP/2" in found["stream transport"]["detail"]
    assert "no router" in found["stream transport"]["fix"]
    machine.set("COORDINATOR_TLS", "true")
    assert "TLS" in (await machine.findings())["stream transport"]["detail"]


async def test_one_router_of_several_is_enough_and_another_can_be_probed(machine):
    place_folder(machine.home, BUILD)
    good = os.environ[PREFIX + "COORDINATOR"]  # noqa: TID251 - set by the fixture
    machine.set("COORDINATOR", f"127.0.0.1:1,{good}")
    assert await machine.findings() == {}
    code, out, _ = await machine.doctor("--json", "--coordinator", "127.0.0.1:1")
    assert code == 1
    failed = [found["name"] for found in json.loads(out) if found["result"] == "fail"]
    assert failed == ["stream transport"]
    assert (await machine.doctor("--coordinator", "nowhere"))[0] == 64


async def test_a_gateway_that_is_silent_or_strange_is_named(machine):
    place_folder(machine.home, BUILD)
    machine.set("GATEWAY", "http://127.0.0.1:1")
    found = await machine.findings()
    assert list(found) == ["coordinator health"]
    assert "does not answer" in found["coordinator health"]["detail"]
    machine.set("GATEWAY", machine.gateway.url)
    machine.gateway.answers["GET /health"] = [(503, b"no json")]
    assert "status 503" in (await machine.findings())["coordinator health"]["detail"]


async def test_a_newer_release_is_a_warning(machine):
    place_folder(machine.home, BUILD)
    machine.gateway.latest = "9.0.0"
    found = await machine.findings()
    assert list(found) == ["up to date"]
    assert "9.0.0 is out" in found["up to date"]["detail"]
    machine.gateway.latest = ""
    assert await machine.findings() == {}


async def test_a_stale_picture_and_a_lost_stream_are_failures(machine):
    place_folder(machine.home, BUILD)
    old = (now() - timedelta(hours=10, minutes=10)).isoformat()
    machine.state |= {"updated_at": old, "connection": "connecting", "last_error": "gone"}
    found = await machine.findings()
    assert set(found) == {"daemon state freshness", "daemon connected"}
    assert "10 h" in found["daemon state freshness"]["detail"]
    assert found["daemon connected"]["detail"] == "gone"


@pytest.mark.parametrize(
    ("connection", "result"),
    [("closed", "pass"), ("local", "pass"), ("loading", "warn"), ("connecting", "fail")],
)
async def test_a_link_that_is_meant_to_be_down_is_no_finding(machine, connection, result):
    place_folder(machine.home, BUILD)
    machine.state["connection"] = connection
    found = await machine.findings()
    assert {name: one["result"] for name, one in found.items()} == (
        {} if result == "pass" else {"daemon connected": result}
    )


async def test_a_shut_gate_and_unsettled_usage_are_warnings(machine):
    place_folder(machine.home, BUILD)
    shut = state.RoutedModel(
        id=BUILD, eligible=False, reason="challenge_stale", evidence="17 min", remedy="wait"
    )
    machine.state |= {"routing": (shut,), "unacknowledged_terminals": 3}
    found = await machine.findings()
    assert {name: one["result"] for name, one in found.items()} == {
        "requests": "warn",
        "usage reporting": "warn",
    }
    assert found["requests"]["fix"] == "wait"


async def test_what_the_hubs_cache_holds_is_told_with_the_command_that_takes_it(machine):
    place_folder(machine.home, BUILD)
    hub = machine.home.root / "huggingface" / "hub"
    for name in (BUILD, "org/other"):
        revision = hub / f"models--{name.replace('/', '--')}" / "snapshots" / "0123abc"
        revision.mkdir(parents=True)
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (revision / file).write_bytes(b"{}")
    _, out, _ = await machine.doctor("--json")
    [told] = [one for one in json.loads(out) if one["name"] == "huggingface cache"]
    assert told["result"] == "pass"
    # What the store has already is not offered.
    assert f"models import {revision} --id org/other" in told["detail"]
    assert BUILD not in told["detail"]


async def test_an_unknown_interpreter_and_a_level_too_low_are_named(machine):
    place_folder(machine.home, BUILD)
    low = state.RoutedModel(
        id=BUILD,
        eligible=False,
        reason="trust_floor",
        evidence="level none, floor hardware",
        remedy="earn the level",
    )
    machine.state |= {
        "routing": (low,),
        "runtime_verified": False,
        "runtime_mismatches": ("python",),
    }
    found = await machine.findings()
    assert {name: one["result"] for name, one in found.items()} == {
        "binary hash": "fail",
        "runtime integrity": "fail",
        "coordinator trust": "warn",
        "requests": "warn",
    }
    assert "floor hardware" in found["coordinator trust"]["detail"]
    assert "darkbloom update" in found["binary hash"]["fix"]


async def test_a_failed_engine_and_a_stuck_download_are_named(machine):
    place_folder(machine.home, BUILD)
    crashed = state.SlotView(
        model=BUILD, state="crashed", running=0, waiting=0, budget_used=0, budget_max=0
    )
    stuck = state.DownloadView(model="org/new", version="1", state="refused", reason="disk_full")
    machine.state |= {"slots": (crashed,), "downloads": (stuck,)}
    found = await machine.findings()
    assert {name: one["result"] for name, one in found.items()} == {
        "recent model load": "fail",
        "model downloads": "warn",
    }
    assert "darkbloom restart" in found["recent model load"]["fix"]
    assert "models location" in found["model downloads"]["fix"]


async def test_a_protection_that_is_not_in_force_is_a_failure(machine):
    place_folder(machine.home, BUILD)
    machine.state["protections"] = {"anti_debug_enabled": False, "core_dumps_disabled": True}
    found = await machine.findings()
    assert {name: one["result"] for name, one in found.items()} == {"debugger": "fail"}
    assert "end what traces it" in found["debugger"]["fix"]


@pytest.mark.parametrize("awake", [True, False])
async def test_a_machine_that_may_fall_asleep_is_a_warning(machine, awake):
    place_folder(machine.home, BUILD)
    facts = Facts(
        pid=1,
        generation="g",
        version="0.1.0",
        phase="serving",
        authorised=True,
        sleep_prevented=awake,
    )
    # Its socket has tests of its own; a path below a test's folder may be too long for one.
    machine.monkeypatch.setattr(checks, "ask", lambda _path, _question, timeout_s: facts)
    found = await machine.findings()
    assert list(found) == ([] if awake else ["sleep prevention"])


async def test_files_that_are_damaged_or_open_are_findings_not_crashes(machine):
    place_folder(machine.home, BUILD)
    machine.home.login.chmod(0o644)
    machine.home.identity_key.write_text("nonsense")
    found = await machine.findings()
    assert set(found) == {"account link", "active se key"}
    assert "closed to others" in found["account link"]["detail"]


async def test_a_chosen_model_that_is_not_here_is_named(machine):
    place_folder(machine.home, BUILD)
    machine.write('[backend]\nenabled_models = ["org/none"]\n')
    found = await machine.findings()
    assert list(found) == ["local mlx models"]
    assert found["local mlx models"]["fix"] == "`darkbloom models download org/none`"


async def test_a_rival_engine_is_a_warning(machine):
    place_folder(machine.home, BUILD)
    machine.monkeypatch.setattr(checks, "process_names", lambda: ["zsh", "Ollama"])
    found = await machine.findings()
    assert list(found) == ["competing inference"]


async def test_what_a_helper_asks_for_holds_no_secret(machine):
    place_folder(machine.home, BUILD)
    machine.write('[provider]\nname = "studio"\n')
    code, out, _ = await machine.doctor("--support")
    said = json.loads(out)
    assert code == 0
    assert said["settings"]["name"] == "file"
    assert said["models"] == [BUILD]
    assert said["state"]["connection"] == "registered"
    assert {check["name"] for check in said["checks"]} >= {"clock", "stream transport"}
    assert TOKEN not in out
    assert "PRIVATE" not in out
