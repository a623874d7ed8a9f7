"""The list of metrics is the whole truth: used, closed, bounded, in the words of the rooms."""

import re
from enum import Enum
from importlib import resources
from pathlib import Path

import pytest
from darkbloom_attestation.apns.model import PushResult
from darkbloom_attestation.model import ViolationKind
from darkbloom_billing.model import EndStatus, HoldRefusal, Rejection
from darkbloom_billing.payments.model import WithdrawalStatus
from darkbloom_edge.challenge import ChallengeFault
from darkbloom_edge.registration import RegistrationFault
from darkbloom_edge.sealed_request import SealedFault
from darkbloom_gateway.errors import ViolationFault
from darkbloom_gateway.http import DIALECTS, endpoint_word
from darkbloom_gateway.verdicts import VerdictFault
from darkbloom_mesh import labels, telemetry
from darkbloom_mesh.callers import MATRIX, flat
from darkbloom_mesh.labels import AtMost, Words
from darkbloom_mesh.telemetry import Spec
from darkbloom_provider.cache_metrics import COUNTS
from darkbloom_registry.model_states import ModelStage
from darkbloom_router import failures, taxonomy
from darkbloom_router.failures import Failure
from darkbloom_router.governor import Leave
from darkbloom_router.model import Admission, Blame, TrustLevel
from darkbloom_router.placement import Path as Way
from darkbloom_router.refusals import Reason
from darkbloom_router.warm.pending import LoadEnd
from prometheus_client import generate_latest

ROOT = Path(__file__).resolve().parents[2]
KIT = Path(str(resources.files("darkbloom_mesh")))
OURS = ("telemetry.py", "closed.py", "labels.py")
SPECS = telemetry.declared()
FAILURES = {found.word for found in vars(failures).values() if isinstance(found, Failure)}


def sources() -> dict[str, str]:
    files = [*(ROOT / "services").rglob("*.py"), *(ROOT / "provider").rglob("*.py")]
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for path in files
        if not (path.parent == KIT and path.name in OURS)
    }


def values(kind: type[Enum]) -> set[str]:
    return {
        member.value if isinstance(member.value, str) else member.name.lower() for member in kind
    }


def with_prefix(prefix: str, words: set[str]) -> set[str]:
    return {prefix + word for word in words}


def test_no_room_makes_a_metric_of_its_own() -> None:
    makers = {
        name
        for name, text in sources().items()
        if re.search(r"import.*prometheus|prometheus.*import", text)
    }
    assert makers == set()


def test_every_declared_metric_is_set_by_somebody() -> None:
    names = {spec: name for name, spec in vars(telemetry).items() if isinstance(spec, Spec)}
    words = {word for text in sources().values() for word in re.findall(r"\w+", text)}
    kit = (telemetry.BUILD_INFO, telemetry.LABELS_FOLDED)
    unused = [spec.name for spec in SPECS if spec not in kit and names[spec] not in words]
    assert unused == []


def test_every_declared_span_is_opened_by_somebody() -> None:
    everything = "\n".join(sources().values())
    assert [name for name in telemetry.SPANS if f'"{name}"' not in everything] == []


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_metric_says_what_it_is(spec: Spec) -> None:
    assert re.fullmatch(r"darkbloom_[a-z][a-z0-9_]*", spec.name)
    assert spec.doc == spec.doc.strip(" .")
    assert spec.doc
    assert (spec.kind == "counter") == spec.name.endswith("_total")
    assert bool(spec.buckets) == (spec.kind == "histogram")
    assert spec.buckets == tuple(sorted(set(spec.buckets)))
    for unit in ("seconds", "bytes", "ratio"):
        if spec.unit == unit:
            assert spec.name.endswith(f"_{unit}")
    for _, vocabulary in spec.vocabulary:
        if isinstance(vocabulary, Words):
            assert 0 < len(vocabulary.words) <= 80
        else:
            assert 1 < vocabulary.limit <= 512


def test_no_label_is_an_identity_or_something_that_somebody_typed() -> None:
    names = {name for spec in SPECS for name in spec.labels}
    assert not [
        name for name in names if re.search(r"_id$|^id$|account|key|user|serial|^ip$", name)
    ]
    open_ended = {
        name
        for spec in SPECS
        for name, vocabulary in spec.vocabulary
        if isinstance(vocabulary, AtMost)
    }
    assert open_ended == {
        *("commit", "method", "metric", "model", "release", "route", "status", "version"),
    }


def test_a_word_outside_of_its_list_is_counted_as_other_and_noticed() -> None:
    metrics = telemetry.Metrics(version="1")
    outcomes = metrics.counter(telemetry.OUTCOMES)
    for number in range(3):
        outcomes.labels("m", f"something that a caller typed {number}").inc()
    outcomes.labels("m", "success").inc()
    page = generate_latest(metrics.registry).decode()
    assert 'darkbloom_request_outcomes_total{class="other",model="m"} 3.0' in page
    assert 'darkbloom_labels_folded_total{metric="darkbloom_request_outcomes_total"} 3.0' in page
    assert "caller typed" not in page


def test_names_beyond_their_bound_are_counted_as_other() -> None:
    metrics = telemetry.Metrics(version="1")
    paces = metrics.counter(telemetry.PARTIAL_SUCCESS)
    for number in range(labels.MODEL.limit + 10):
        paces.labels(f"m{number}").inc()
    page = generate_latest(metrics.registry).decode()
    assert page.count("darkbloom_partial_success_total{") == labels.MODEL.limit + 1
    assert 'darkbloom_partial_success_total{model="other"} 10.0' in page


def test_a_gauge_that_was_cleared_begins_anew() -> None:
    metrics = telemetry.Metrics(version="1")
    depth = metrics.gauge(telemetry.QUEUE_DEPTH)
    depth.labels("m").set(3)
    depth.clear()
    assert "darkbloom_queue_depth{" not in generate_latest(metrics.registry).decode()
    depth.labels("m").set(2)
    assert 'darkbloom_queue_depth{model="m"} 2.0' in generate_latest(metrics.registry).decode()


@pytest.mark.parametrize(
    ("said", "listed"),
    [
        pytest.param(FAILURES, labels.ERROR, id="failures"),
        pytest.param(FAILURES, labels.ATTEMPT_CLASS, id="attempts"),
        pytest.param(values(Reason), labels.DECISION, id="refusals"),
        pytest.param(values(Way), labels.PATH, id="paths"),
        pytest.param(values(Leave), labels.HEDGE_VERDICT, id="hedges"),
        pytest.param({level.word for level in TrustLevel}, labels.TRUST, id="trust"),
        pytest.param(values(Admission) - {""}, labels.ADMISSION, id="admission"),
        pytest.param(values(LoadEnd), labels.LOAD, id="loads"),
        pytest.param(with_prefix("violation_", values(ViolationFault)), labels.ERROR, id="edge"),
        pytest.param(with_prefix("verdict_", values(VerdictFault)), labels.ERROR, id="verdicts"),
        pytest.param(values(SealedFault), labels.SEALED, id="sealed"),
        pytest.param({endpoint_word(path) for path in DIALECTS}, labels.ENDPOINT, id="endpoints"),
        pytest.param(values(ViolationKind), labels.SUSPICION, id="violations"),
        pytest.param(values(RegistrationFault), labels.EVIDENCE_FAULT, id="registrations"),
        pytest.param(values(ChallengeFault), labels.EVIDENCE_FAULT, id="challenges"),
        pytest.param(values(PushResult), labels.PUSH, id="pushes"),
        pytest.param(values(HoldRefusal), labels.HOLD, id="holds"),
        pytest.param(values(EndStatus), labels.SETTLEMENT, id="settlements"),
        pytest.param(with_prefix("rejected_", values(Rejection)), labels.SETTLEMENT, id="rejects"),
        pytest.param(values(WithdrawalStatus), labels.WITHDRAWAL, id="withdrawals"),
        pytest.param(set(COUNTS), labels.PREFIX_COUNT, id="prefixes"),
        pytest.param(values(ModelStage), labels.STAGE, id="stages"),
    ],
)  # fmt: skip
def test_the_rooms_words_are_in_their_list(said: set[str], listed: Words) -> None:
    assert said
    assert said - listed.words == set()


def test_every_method_of_ours_has_room() -> None:
    assert len(flat(MATRIX)) < labels.RPC_METHOD.limit


def test_every_outcome_of_an_attempt_has_a_meaning() -> None:
    """And no word that can be counted falls to `unknown`."""
    for word in labels.ATTEMPT_CLASS.words - {"unspecified"}:
        for accepted in (False, True):
            for committed in (False, True):
                found = taxonomy.ending(word, accepted=accepted, committed=committed)
                good = found.final_status is taxonomy.FinalStatus.SUCCESS
                assert good == (found.error_class == "") == (found.error_reason == "")
                assert found.error_reason != "unknown", word


def test_what_is_neutral_for_health_blames_no_machine() -> None:
    for found in vars(failures).values():
        if isinstance(found, Failure):
            reason = taxonomy.ending(found.word, accepted=True, committed=False).error_reason
            if reason in taxonomy.HEALTH_NEUTRAL:
                assert found.blame in {Blame.NOBODY, Blame.LATE}, found.word
