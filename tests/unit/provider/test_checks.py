"""Single checks of `doctor`: over facts that are handed in, well and not well."""

import pytest
from darkbloom_provider.checks import hub, kv, live, mac
from darkbloom_provider.mac.posture import Enrolment, Posture
from darkbloom_provider.mac.session import Console
from darkbloom_provider.service.guard import WINDOW_S, Watch
from darkbloom_provider.state import AgentState, RoutedModel, SlotView

DIGEST = "ab" * 32


def snapshot(**changes) -> AgentState:
    fields = {
        "pid": 1,
        "version": "0.1.0",
        "started_at": "",
        "updated_at": "",
        "coordinator": "router:8443",
        "connection": "registered",
        "engine": "mlx-lm",
        "trust_level": "hardware",
    }
    return AgentState(**{**fields, **changes})


def slot(**changes) -> SlotView:
    fields = {
        "model": "org/tiny",
        "state": "idle",
        "running": 0,
        "waiting": 0,
        "budget_used": 10,
        "budget_max": 4096,
    }
    return SlotView(**{**fields, **changes})


def judged(check) -> tuple[str, str]:
    """Return name and result; what is not well says what to do."""
    assert check.detail
    assert bool(check.fix) == (check.result != "pass")
    return check.name, check.result


@pytest.mark.parametrize(
    ("found", "result", "said"),
    [
        (Console(501, "ada"), "pass", "you are"),
        (Console(502, "bob"), "warn", "bob is"),
        (Console(0, "root"), "warn", "nobody is"),
        (None, "warn", "does not say"),
    ],
    ids=["you", "another", "nobody", "silence"],
)
def test_the_screen_must_be_yours(found, result, said):
    check = mac._console(found, 501)
    assert judged(check) == ("console session", result)
    assert said in check.detail
    assert judged(mac._console(Console(0, "root"), 0))[1] == "warn"


@pytest.mark.parametrize(
    ("user", "result"), [("ada", "pass"), ("", "warn"), (None, "warn")], ids=["on", "off", "silent"]
)
def test_a_machine_that_logs_nobody_in_serves_nothing_after_a_restart(user, result):
    assert judged(mac._automatic_login(user)) == ("automatic login", result)


@pytest.mark.parametrize(
    ("idle_s", "result"), [(0, "pass"), (3600, "warn"), (None, "warn")], ids=["off", "on", "silent"]
)
def test_a_session_that_ends_by_itself_is_named(idle_s, result):
    check = mac._auto_logout(idle_s)
    assert judged(check) == ("auto-logout on idle", result)
    assert ("1 h 0 min" in check.detail) is (idle_s == 3600)


@pytest.mark.parametrize(
    ("hardened", "result", "said"),
    [(True, "pass", "forbids"), (False, "warn", "signed without"), (None, "warn", "not signed")],
    ids=["hardened", "plain", "unsigned"],
)
def test_the_interpreter_must_be_signed_hardened(hardened, result, said):
    check = mac._hardened(hardened)
    assert judged(check) == ("hardened runtime", result)
    assert said in check.detail


@pytest.mark.parametrize(
    ("state", "result"),
    [
        ({}, "pass"),
        ({"trust_level": "self_signed", "trust_reason": "posture_missing"}, "warn"),
        ({"trust_level": "none"}, "warn"),
        ({"trust_level": "none", "trust_reason": "posture_mismatch"}, "fail"),
    ],
    ids=["accepted", "missing", "none", "refused"],
)
def test_the_managers_report_must_have_been_accepted(state, result):
    assert judged(mac._verified(snapshot(**state))) == ("mdm verification", result)


def test_the_gpu_and_the_manager_are_told():
    assert judged(mac._metal("Metal 4")) == ("metal gpu", "pass")
    assert judged(mac._metal(None)) == ("metal gpu", "warn")
    assert judged(mac._managed(Enrolment.MANAGED)) == ("mdm enrollment", "pass")
    assert judged(mac._managed(Enrolment.NONE)) == ("mdm enrollment", "warn")
    assert judged(mac._macos("26.1")) == ("macos", "pass")
    assert judged(mac._macos("15.3")) == ("macos", "warn")
    assert {judged(check)[1] for check in mac._posture(Posture())} == {"warn"}


def test_an_interpreter_that_the_router_does_not_know_is_a_failure():
    known = live.binary(snapshot(runtime_verified=True), DIGEST)
    assert judged(known) == ("binary hash", "pass")
    assert "ababababab" in known.detail
    other = live.binary(snapshot(runtime_mismatches=("runtime",)), DIGEST)
    assert judged(other) == ("binary hash", "pass")
    assert "as a known release" not in other.detail
    changed = live.binary(snapshot(runtime_mismatches=("python",)), DIGEST)
    assert judged(changed) == ("binary hash", "fail")


def test_a_level_below_the_floor_is_named_with_both():
    below = RoutedModel(
        id="org/tiny", eligible=False, reason="trust_floor", evidence="level none, floor hardware"
    )
    busy = RoutedModel(id="org/tiny", eligible=False, reason="at_capacity", evidence="8 of 8")
    check = live._level(snapshot(routing=(below, busy)))
    assert judged(check) == ("coordinator trust", "warn")
    assert check.detail == "org/tiny: level none, floor hardware"
    assert judged(live._level(snapshot(routing=(busy,)))) == ("coordinator trust", "pass")


def test_kv_without_room_is_named_and_a_crashed_slot_is_not_kvs_fault():
    roomy = kv.posture(snapshot(slots=(slot(), slot(state="crashed", budget_max=0))))
    assert judged(roomy) == ("kv backend posture", "pass")
    assert "10 of 4096" in roomy.detail
    assert judged(kv.posture(snapshot(slots=(slot(budget_max=0),))))[1] == "warn"
    scripted = kv.posture(snapshot(engine="scripted", slots=(slot(budget_max=0),)))
    assert scripted.detail == "the engine scripted keeps no KV"
    assert judged(scripted)[1] == "pass"


def test_the_guard_tells_crashes_of_this_hour_and_that_it_gave_up():
    name, now = "kv backend crash-loop guard", 10_000.0
    assert judged(kv.guard(Watch(), now)) == (name, "pass")
    assert judged(kv.guard(Watch(restarts=(now - WINDOW_S,)), now)) == (name, "pass")
    once = kv.guard(Watch(restarts=(now - WINDOW_S, now - 5)), now)
    assert judged(once) == (name, "warn")
    assert "1 of 3" in once.detail
    tripped = kv.guard(Watch(version="1.2.3", tripped=True), now)
    assert judged(tripped) == (name, "fail")
    assert "1.2.3" in tripped.detail


def test_the_hubs_cache_is_where_its_own_tools_look():
    assert str(hub.cache_root({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"})) == "/a"
    assert str(hub.cache_root({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"})) == "/b/hub"
    assert str(hub.cache_root({"XDG_CACHE_HOME": "/c"})) == "/c/huggingface/hub"
    assert hub.cache_root({}).parts[-3:] == (".cache", "huggingface", "hub")


def test_only_whole_models_of_the_cache_can_be_imported(tmp_path):
    def place(name, *files):
        blobs = tmp_path / f"models--org--{name}" / "blobs"
        revision = blobs.parent / "snapshots" / "0123abc"
        blobs.mkdir(parents=True)
        revision.mkdir(parents=True)
        for file in files:
            (blobs / file).write_bytes(b"12345")
            (revision / file).symlink_to(blobs / file)
        return revision

    whole = place("whole", "config.json", "tokenizer.json", "model.safetensors")
    place("bare", "config.json", "tokenizer.json")
    cut = place("cut", "config.json", "tokenizer.json")
    (cut / "model.safetensors").symlink_to(cut / "gone")
    (tmp_path / "datasets--org--set").mkdir()
    (tmp_path / "models--org--empty").mkdir()

    found = {one.name: one for one in hub.cached(tmp_path)}
    assert set(found) == {"org/whole", "org/bare", "org/cut", "org/empty"}
    assert {name for name, one in found.items() if one.folder is not None} == {"org/whole"}
    assert found["org/whole"].folder == whole
    assert found["org/whole"].size_bytes == 15
