"""A gateway that lies, each lie by deed: refused by name, and nothing readable has left."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from darkbloom_client import AsyncTransport, Pins, Policy, PriceLimit, Reason, Transport
from darkbloom_client.exchange import Body
from darkbloom_edge.dialects.chat import CHAT
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.envelope import new_key_pair
from darkbloom_edge.log import KeyEntry, encode_entry
from darkbloom_edge.records import RecordKind
from darkbloom_edge.signatures import Ed25519Signer, to_base64
from msgspec import structs

from tests.fakes.blind_mesh import MODEL, RELEASE, BlindMesh, flipped

SECRET = "a secret that nobody else may read"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": SECRET}]}
Json = dict[str, Any]


@pytest.fixture
def mesh() -> BlindMesh:
    return BlindMesh()


def ask(
    mesh: BlindMesh, *, stream: bool = False, policy: Policy | None = None, n: int = 1
) -> httpx.Response:
    transport = Transport(policy or mesh.policy(), inner=mesh.line(httpx), clock=mesh)
    with httpx.Client(transport=transport, base_url="https://mesh.test") as client:
        return client.post("/v1/chat/completions", json={**BODY, "stream": stream, "n": n})


def refused(mesh: BlindMesh, **options: Any) -> str:
    """Ask, and return the named reason; the answer must not have come, whole or streamed."""
    answer = ask(mesh, **options)
    assert answer.status_code == 403, answer.text
    reason: str = answer.json()["error"]["code"]
    assert answer.headers["x-darkbloom-refused"] == reason
    assert answer.json()["error"]["type"] == "end_to_end_refused"
    assert "Hello" not in answer.text
    assert not any(SECRET.encode() in body for body in mesh.bodies)
    return reason


def edit(**fields: Any) -> Callable[[Json], Json]:
    return lambda found: {**found, **fields}


def touch(holder: str, name: str) -> Callable[[Json], Json]:
    """Change one bit of a signed part."""

    def change(found: Json) -> Json:
        return {**found, holder: {**found[holder], name: flipped(found[holder][name])}}

    return change


def other_key(mesh: BlindMesh) -> Callable[[Json], Json]:
    stranger = to_base64(new_key_pair().public)
    return edit(encryption_key=stranger)


BEFORE_SEALING: dict[str, tuple[str, Callable[[Json], Json], Reason]] = {
    "altered verdict": ("offered", touch("verdict", "signature"), Reason.VERDICT_FORGED),
    "altered offer": ("offered", touch("offer", "signature"), Reason.OFFER_MALFORMED),
    "no offer": ("offered", lambda _: {"offer": 1}, Reason.OFFER_MALFORMED),
    "replayed offer": ("offer", edit(nonce=to_base64(bytes(32))), Reason.OFFER_REPLAYED),
    "another model": ("offer", edit(requested_model="dearer"), Reason.BUILD_CHANGED),
    "more prompt": ("offer", edit(prompt_bound=1 << 20), Reason.BOUNDS_CHANGED),
    "other verdict": ("offer", edit(verdict_sha256="0" * 64), Reason.KEY_SWAPPED),
    "other machine": (
        "offer",
        edit(provider_id="prov_" + "0" * 32),
        Reason.KEY_SWAPPED,
    ),
    "downgraded trust": ("verdict", edit(trust_level="self_signed"), Reason.TRUST_TOO_LOW),
    "owner's machine": ("verdict", edit(admission="owner"), Reason.TRUST_TOO_LOW),
    "unknown release": ("verdict", edit(code_release="rel_2"), Reason.RELEASE_NOT_LOGGED),
    "altered head": (
        "head",
        lambda head: {**head, "signature": flipped(head["signature"])},
        Reason.LOG_UNPINNED,
    ),
}


@pytest.mark.parametrize("lie", BEFORE_SEALING)
def test_a_lie_before_sealing_is_refused_by_name_and_nothing_is_sealed(
    mesh: BlindMesh, lie: str
) -> None:
    what, how, reason = BEFORE_SEALING[lie]
    mesh.change[what] = how

    assert refused(mesh) == reason.value

    assert mesh.prompts == []
    assert ("POST", "/v1/offers/answer") not in mesh.calls


def test_a_swapped_key_is_refused_though_attestation_itself_signs_it(mesh: BlindMesh) -> None:
    # Whoever holds attestation's key still cannot make the machine say that another key is its own.
    mesh.change["verdict"] = other_key(mesh)

    assert refused(mesh) == Reason.KEY_SWAPPED.value
    assert mesh.prompts == []
    assert len(mesh.declined) == 1


def test_evidence_with_the_swapped_key_is_not_what_the_machine_and_apple_signed(
    mesh: BlindMesh,
) -> None:
    stranger = to_base64(new_key_pair().public)
    mesh.change["verdict"] = edit(encryption_key=stranger)
    mesh.change["evidence"] = lambda rows: [{**rows[0], "encryption_key": stranger}]

    assert refused(mesh) == Reason.EVIDENCE_FORGED.value
    assert mesh.prompts == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("app_attest", Reason.EVIDENCE_MISSING),
        ("challenge", Reason.EVIDENCE_MISSING),
        ("registration", Reason.EVIDENCE_MISSING),
    ],
)
def test_missing_evidence_is_not_replaced_by_the_operators_word(
    mesh: BlindMesh, kind: str, reason: Reason
) -> None:
    def without(rows: list[Json]) -> list[Json]:
        pieces = [
            piece if piece["kind"] != kind else {**_bare(piece), "backing": "operator_asserted"}
            for piece in rows[0]["evidence"]
        ]
        if kind == "app_attest":
            pieces = [piece for piece in pieces if piece["kind"] != kind]
            pieces.append({"id": "mda_1", "kind": "mda", "backing": "operator_asserted"})
        return [{**rows[0], "evidence": pieces, "trust_level": "hardware", "mda_verified": True}]

    mesh.change["evidence"] = without

    assert refused(mesh) == reason.value


def _bare(piece: Json) -> Json:
    return {"id": piece["id"], "kind": piece["kind"]}


def test_no_evidence_at_all_is_refused(mesh: BlindMesh) -> None:
    mesh.change["evidence"] = lambda _: []

    assert refused(mesh) == Reason.EVIDENCE_MISSING.value


def test_another_apples_signature_is_none(mesh: BlindMesh) -> None:
    genuine = Policy(pins=mesh.pins(), app_id=mesh.policy().app_id)

    assert refused(mesh, policy=genuine) == Reason.EVIDENCE_FORGED.value


def test_another_app_of_apples_world_is_refused(mesh: BlindMesh) -> None:
    policy = mesh.policy(app_id="OTHER12345.io.example.provider")

    assert refused(mesh, policy=policy) == Reason.EVIDENCE_FORGED.value


def test_stale_evidence_is_refused_by_our_own_clock(mesh: BlindMesh) -> None:
    # A verdict is renewed all the time; the machine has not been asked for seventeen minutes.
    mesh.evidence()
    mesh.observed = mesh.time = mesh.time + timedelta(minutes=17)

    assert refused(mesh) == Reason.EVIDENCE_STALE.value


def test_a_verdict_past_its_time_is_refused(mesh: BlindMesh) -> None:
    mesh.time += timedelta(minutes=17)

    assert refused(mesh) == Reason.VERDICT_EXPIRED.value


def dawdling(mesh: BlindMesh, time: timedelta) -> Callable[[list[Json]], list[Json]]:
    """Take this long, once, for the last page that is read before sealing."""
    pages: list[int] = []

    def change(found: list[Json]) -> list[Json]:
        pages.append(1)
        if len(pages) == 2:
            mesh.time += time
        return found

    return change


def test_a_verdict_that_runs_out_while_pages_are_read_is_not_sealed_under(mesh: BlindMesh) -> None:
    mesh.change["entries"] = dawdling(mesh, timedelta(minutes=17))

    assert refused(mesh) == Reason.VERDICT_EXPIRED.value
    assert mesh.prompts == []
    assert len(mesh.declined) == 1


@pytest.mark.parametrize("late", [timedelta(seconds=3), timedelta(seconds=-3)])
def test_an_offer_that_is_over_is_not_sealed_under_and_another_is_asked_for(
    mesh: BlindMesh, late: timedelta
) -> None:
    mesh.change["entries"] = dawdling(mesh, late)

    assert ask(mesh).status_code == 200
    assert mesh.calls.count(("POST", "/v1/offers")) == 2
    assert mesh.calls.count(("POST", "/v1/offers/answer")) == 1
    asked = [json.loads(body) for body in mesh.bodies if body.startswith(b'{"model"')]
    assert [one["exclude"] for one in asked] == [[], []]


def test_a_stricter_age_is_kept(mesh: BlindMesh) -> None:
    mesh.time += timedelta(minutes=6)

    assert ask(mesh).status_code == 200
    policy = mesh.policy(max_age=timedelta(minutes=5))
    assert refused(mesh, policy=policy) == Reason.EVIDENCE_STALE.value


def test_a_verdict_of_another_attestation_is_refused(mesh: BlindMesh) -> None:
    policy = BlindMesh().policy()
    mesh.attestation = Ed25519Signer(bytes(32))

    # The gateway's key is known from the log, whose head is the first thing that is not pinned.
    assert refused(mesh, policy=policy) == Reason.LOG_UNPINNED.value


def test_a_verdict_by_a_key_that_is_not_pinned_is_refused(mesh: BlindMesh) -> None:
    pins = Pins(
        verdict_keys={"another": bytes(32)},
        log_keys=mesh.pins().log_keys,
        gateway_keys={mesh.gateway.key_id: mesh.gateway.public},
    )

    assert refused(mesh, policy=mesh.policy(pins=pins)) == Reason.VERDICT_UNPINNED.value
    assert mesh.prompts == []


def test_a_release_outside_the_list_is_refused(mesh: BlindMesh) -> None:
    policy = mesh.policy(allowed_releases={"rel_0"})

    assert refused(mesh, policy=policy) == Reason.RELEASE_NOT_ALLOWED.value
    assert ask(mesh, policy=mesh.policy(allowed_releases={RELEASE})).status_code == 200


def test_a_withdrawn_release_is_refused_until_it_is_blessed_again(mesh: BlindMesh) -> None:
    mesh.bless("withdrawn")
    assert refused(mesh) == Reason.RELEASE_WITHDRAWN.value

    mesh.bless()
    assert ask(mesh).status_code == 200


def retire(mesh: BlindMesh, action: Any = "retired") -> None:
    mesh.log.append(
        encode_entry(
            KeyEntry(
                kind="receipt_key",
                action=action,
                key_id=mesh.gateway.key_id,
                public_key=to_base64(mesh.gateway.public),
                time=rfc3339(mesh.time),
            )
        )
    )


def test_a_gateways_key_that_was_retired_signs_no_offer(mesh: BlindMesh) -> None:
    retire(mesh)
    assert refused(mesh) == Reason.RECEIPT_FORGED.value
    assert mesh.prompts == []

    retire(mesh, "published")
    assert ask(mesh).status_code == 200


def test_a_gateways_key_is_not_believed_for_good(mesh: BlindMesh) -> None:
    transport = Transport(mesh.policy(), inner=mesh.line(httpx), clock=mesh)
    with httpx.Client(transport=transport, base_url="https://mesh.test") as client:
        assert client.post("/v1/chat/completions", json=BODY).status_code == 200
        retire(mesh)
        # What the log said is asked for again after half the age that the policy allows.
        mesh.time += timedelta(minutes=9)
        answer = client.post("/v1/chat/completions", json=BODY)

    assert answer.json()["error"]["code"] == Reason.RECEIPT_FORGED.value


def test_a_gateways_key_that_is_logged_a_moment_later_is_found_then(mesh: BlindMesh) -> None:
    published = mesh.log.pop()
    transport = Transport(mesh.policy(), inner=mesh.line(httpx), clock=mesh)
    with httpx.Client(transport=transport, base_url="https://mesh.test") as client:
        assert client.post("/v1/chat/completions", json=BODY).status_code == 403
        mesh.log.append(published)
        assert client.post("/v1/chat/completions", json=BODY).status_code == 200


def test_a_development_release_needs_to_be_allowed(mesh: BlindMesh) -> None:
    mesh.bless(development=True)

    assert refused(mesh) == Reason.RELEASE_NOT_ALLOWED.value
    assert ask(mesh, policy=mesh.policy(allow_unattested=True)).status_code == 200
    assert ask(mesh, policy=mesh.policy(allowed_releases={RELEASE})).status_code == 200


def test_an_old_head_is_refused(mesh: BlindMesh) -> None:
    mesh.head_time = mesh.time - timedelta(minutes=17)

    assert refused(mesh) == Reason.LOG_STALE.value


def test_an_entry_that_is_not_in_the_log_is_refused(mesh: BlindMesh) -> None:
    def forged(entries: list[Json]) -> list[Json]:
        return [{**entry, "entry": flipped(entry["entry"])} for entry in entries]

    mesh.change["entries"] = forged

    assert refused(mesh) == Reason.LOG_REWRITTEN.value


def test_a_log_that_was_rewritten_is_noticed_by_whoever_saw_it_before(mesh: BlindMesh) -> None:
    transport = Transport(mesh.policy(), inner=mesh.line(httpx), clock=mesh)
    with httpx.Client(transport=transport, base_url="https://mesh.test") as client:
        assert client.post("/v1/chat/completions", json=BODY).status_code == 200
        mesh.log[0] = b'{"other":2}'
        mesh.log.append(b'{"other":3}')
        # What was proven is good for half the age that the policy allows.
        mesh.time += timedelta(minutes=9)
        answer = client.post("/v1/chat/completions", json=BODY)

    assert answer.json()["error"]["code"] == Reason.LOG_REWRITTEN.value


FAIR = PriceLimit(input_micros=100, output_micros=400, hold_micros=100)


@pytest.mark.parametrize(
    "fields",
    [{"input_micros": 99}, {"output_micros": 399}, {"hold_micros": 99}, {"minimum_micros": 99}],
    ids="-".join,
)
def test_a_price_above_what_was_asked_is_refused(mesh: BlindMesh, fields: Json) -> None:
    limit = replace(FAIR, **fields)

    assert refused(mesh, policy=mesh.policy(max_price=limit)) == Reason.PRICE_TOO_HIGH.value
    assert ask(mesh, policy=mesh.policy(max_price=FAIR)).status_code == 200


@pytest.mark.parametrize(
    "lie",
    [
        {"price": {"minimum_charge_micros": 101}},
        {"hold_micro_usd": 101},
        {"price": None, "hold_micro_usd": 101},
    ],
    ids=["minimum", "hold", "hold-without-price"],
)
def test_fair_rates_do_not_hide_a_dear_request(mesh: BlindMesh, lie: Json) -> None:
    def dearer(found: Json) -> Json:
        price = lie.get("price", {})
        changed = None if price is None else structs.replace(found["price"], **price)
        return {**found, **lie, "price": changed}

    mesh.change["offer"] = dearer
    limit = replace(FAIR, hold_micros=None)

    assert refused(mesh, policy=mesh.policy(max_price=limit)) == Reason.PRICE_TOO_HIGH.value
    assert mesh.prompts == []


def test_a_limit_allows_what_the_bounds_cost_at_its_own_rates() -> None:
    limit = PriceLimit(input_micros=50_000, output_micros=200_000)

    assert limit.most(10, 10) == 100
    assert limit.most(8192, 4096) == 409 + 819


def changed_box(records: list[Any]) -> list[Any]:
    kind, payload, tokens = records[1]
    box = bytearray(payload)
    box[-1] ^= 1
    return [records[0], (kind, bytes(box), tokens), *records[2:]]


AFTER_SEALING: dict[str, tuple[str, Callable[[Any], Any], Reason]] = {
    "altered chunk": ("records", changed_box, Reason.CHUNK_ALTERED),
    "dropped chunk": ("records", lambda r: [r[0], *r[2:]], Reason.CHUNK_ALTERED),
    "reordered chunks": ("records", lambda r: [r[0], r[2], r[1]], Reason.CHUNK_ALTERED),
    "repeated chunk": ("records", lambda r: [r[0], r[0], *r[1:]], Reason.CHUNK_ALTERED),
    "wrong kind": (
        "records",
        lambda r: [(RecordKind.PREAMBLE, *r[0][1:]), *r[1:]],
        Reason.CHUNK_ALTERED,
    ),
    "false count": (
        "records",
        lambda r: [(r[0][0], r[0][1], 9), *r[1:]],
        Reason.COUNTS_FALSE,
    ),
    "no nonce": ("nonce", lambda _: b"", Reason.NONCE_WRONG),
    "another nonce": ("nonce", lambda _: bytes(32), Reason.NONCE_WRONG),
    "old terminal": ("terminal", edit(edge_nonce=to_base64(bytes(32))), Reason.NONCE_WRONG),
    "terminal without nonce": ("terminal", edit(edge_nonce=None), Reason.NONCE_WRONG),
    "more tokens": ("terminal", edit(completion_tokens=3), Reason.COUNTS_FALSE),
    "other build": ("terminal", edit(build="cheaper"), Reason.TERMINAL_FORGED),
    "fewer machines": ("terminal", edit(sealed_to=2), Reason.TERMINAL_FORGED),
    "stopped": ("terminal", edit(outcome="cancelled"), Reason.TERMINAL_FORGED),
    "dropped terminal": (
        "receipt",
        lambda r: {**r, "terminal": ""},
        Reason.TERMINAL_MISSING,
    ),
    "forged terminal": (
        "receipt",
        lambda r: {**r, "terminal_signature": flipped(r["terminal_signature"])},
        Reason.TERMINAL_FORGED,
    ),
    "dropped receipt": ("receipt", lambda _: None, Reason.RECEIPT_MISSING),
    "empty receipt": ("receipt", lambda _: {}, Reason.RECEIPT_FORGED),
    "forged countersign": (
        "receipt",
        lambda r: {**r, "countersign_signature": flipped(r["countersign_signature"])},
        Reason.RECEIPT_FORGED,
    ),
    "unknown gateway": (
        "receipt",
        lambda r: {**r, "gateway_key_id": "another"},
        Reason.RECEIPT_FORGED,
    ),
    "other sealed request": (
        "countersign",
        edit(sealed_sha256="0" * 64),
        Reason.RECEIPT_FORGED,
    ),
    "truncated stream": ("pieces", lambda p: p[:1], Reason.ANSWER_TRUNCATED),
    "cut record": ("pieces", lambda p: [p[0], p[1][:20]], Reason.ANSWER_TRUNCATED),
    "receipt too early": ("pieces", lambda p: [p[0], p[-1]], Reason.ANSWER_TRUNCATED),
    "garbage": ("pieces", lambda p: [p[0], b"\xff" * 20], Reason.CHUNK_ALTERED),
}


@pytest.mark.parametrize("lie", AFTER_SEALING)
def test_a_lie_about_a_whole_answer_is_refused_by_name_and_nothing_is_handed_out(
    mesh: BlindMesh, lie: str
) -> None:
    what, how, reason = AFTER_SEALING[lie]
    mesh.change[what] = how

    assert refused(mesh) == reason.value


@pytest.mark.parametrize("lie", AFTER_SEALING)
def test_a_lie_about_a_stream_ends_it_by_name_and_without_its_end(
    mesh: BlindMesh, lie: str
) -> None:
    what, how, reason = AFTER_SEALING[lie]
    mesh.change[what] = how

    answer = ask(mesh, stream=True)

    if answer.status_code == 403:
        assert answer.json()["error"]["code"] == reason.value
        return
    *_, last = [line for line in answer.text.splitlines() if line]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["type"] == reason.value
    assert "[DONE]" not in answer.text
    assert '"finish_reason":"stop"' not in answer.text


async def test_lies_are_refused_on_an_event_loop_too(mesh: BlindMesh) -> None:
    mesh.change["records"] = changed_box
    transport = AsyncTransport(mesh.policy(), inner=mesh.line(httpx), clock=mesh)
    async with httpx.AsyncClient(transport=transport, base_url="https://mesh.test") as client:
        answer = await client.post("/v1/chat/completions", json=BODY)

    assert answer.json()["error"]["code"] == Reason.CHUNK_ALTERED.value


def test_a_second_choice_that_is_refused_ends_the_stream_by_name(mesh: BlindMesh) -> None:
    seen: list[int] = []

    def second(records: list[Any]) -> list[Any]:
        seen.append(1)
        return changed_box(records) if len(seen) > 1 else records

    mesh.change["records"] = second
    answer = ask(mesh, stream=True, n=2)

    assert answer.status_code == 200
    assert Reason.CHUNK_ALTERED.value in answer.text
    assert "[DONE]" not in answer.text


def test_a_machine_that_failed_is_excluded_and_the_next_offer_counts_it(mesh: BlindMesh) -> None:
    retry = {"x-darkbloom-retry": "new-offer", "x-provider-id": "prov_" + "1" * 32}
    mesh.refusals = [(502, retry, {"type": "provider_error"})]

    answer = ask(mesh)

    assert answer.status_code == 200
    asked = [json.loads(body) for body in mesh.bodies if body.startswith(b'{"model"')]
    assert [one["exclude"] for one in asked] == [[], ["prov_" + "1" * 32]]
    assert asked[0]["nonce"] != asked[1]["nonce"]
    # The first machine may have kept the first prompt: the proof says two.
    receipt = answer.json()["receipt"]
    assert json.loads(base64.b64decode(receipt["terminal"]))["sealed_to"] == 2


def test_failover_ends_after_a_bounded_number_of_offers(mesh: BlindMesh) -> None:
    retry = {"x-darkbloom-retry": "new-offer", "x-provider-id": "prov_" + "1" * 32}
    mesh.refusals = [(503, {**retry, "retry-after": "3"}, {"type": "service_unavailable"})] * 9

    answer = ask(mesh)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert mesh.calls.count(("POST", "/v1/offers")) == 3


@pytest.mark.parametrize(
    "lie",
    [
        {"requested_model": "dearer"},
        {"prompt_bound": 1 << 20},
        {"nonce": to_base64(bytes(32))},
        {"verdict_sha256": "0" * 64},
    ],
    ids="-".join,
)
def test_an_offer_that_is_not_what_was_asked_is_declined_and_its_machine_excluded(
    mesh: BlindMesh, lie: Json
) -> None:
    mesh.change["offer"] = edit(**lie)

    refused(mesh)

    assert mesh.declined == list(mesh.offers)
    asked = [json.loads(body) for body in mesh.bodies if body.startswith(b'{"model"')]
    assert [one["exclude"] for one in asked] == [[], [mesh.provider_id]]


def test_offers_by_an_unknown_gateway_are_declined_and_no_machine_is_blamed(
    mesh: BlindMesh,
) -> None:
    mesh.log.pop()

    assert refused(mesh) == Reason.RECEIPT_FORGED.value
    assert len(mesh.offers) == 3
    assert mesh.declined == list(mesh.offers)
    asked = [json.loads(body) for body in mesh.bodies if body.startswith(b'{"model"')]
    assert [one["exclude"] for one in asked] == [[], [], []]


def test_a_failure_that_another_machine_would_repeat_is_final(mesh: BlindMesh) -> None:
    mesh.refusals = [(429, {"retry-after": "7"}, {"type": "rate_limit_exceeded"})]

    answer = ask(mesh)

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert mesh.calls.count(("POST", "/v1/offers")) == 1


def test_an_offer_that_ran_out_is_asked_for_again(mesh: BlindMesh) -> None:
    mesh.refusals = [(410, {}, {"type": "offer_expired"})]

    assert ask(mesh).status_code == 200
    asked = [json.loads(body) for body in mesh.bodies if body.startswith(b'{"model"')]
    assert [one["exclude"] for one in asked] == [[], []]


def test_what_the_gateway_refuses_is_told_as_it_said_it(mesh: BlindMesh) -> None:
    facts = {"code": "insufficient_quota", "required_micro_usd": 500}
    mesh.no_offer = (402, {}, {"type": "insufficient_funds", **facts})

    answer = ask(mesh)

    assert answer.status_code == 402
    assert answer.json()["error"] == {"message": "no", "type": "insufficient_funds", **facts}


def test_nothing_shows_a_prompt_or_a_key_in_its_text_form(mesh: BlindMesh) -> None:
    body = Body("/v1/chat/completions", CHAT, SECRET.encode(), [("authorization", "Bearer k")])

    assert "secret" not in repr(body)
    assert "secret" not in repr(mesh.policy())
