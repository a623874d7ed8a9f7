"""What the collector takes from a gateway, and what it says where that is not there."""

import json

import httpx
import pytest
from darkbloom_provider.collecting import CollectError, Collector, is_receipt_id, receipt_in

REQUEST = "req_" + "0" * 32


def collector(answer: httpx.Response | Exception) -> Collector:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Collector(
        gateway="http://gateway", api_key="sk-secret", transport=httpx.MockTransport(handle)
    )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.Response(404), "has no receipt"),
        (httpx.Response(401), "refused"),
        (httpx.Response(200, content=b"<html>"), "not an object"),
        (httpx.Response(200, json=[]), "not an object"),
        (httpx.ConnectError("down"), "does not answer"),
        (httpx.Response(200, json={"receipt": {}, "anchor": None}), "not a receipt"),
        (httpx.Response(200, json={"receipt": {}}), "not of this version"),
        (httpx.Response(200, json={"receipt": 1, "anchor": None}), "not of this version"),
    ],
)
def test_what_cannot_be_collected_is_one_sentence(
    answer: httpx.Response | Exception, says: str
) -> None:
    with pytest.raises(CollectError, match=says) as refused:
        collector(answer).collect(REQUEST)
    assert "sk-secret" not in str(refused.value)


def test_what_is_no_receipt_is_not_asked_for() -> None:
    with pytest.raises(CollectError, match="not a receipt"):
        collector(AssertionError("asked")).collect({"receipt_key": "x"})


def test_a_collector_does_not_show_its_key() -> None:
    assert "sk-secret" not in repr(collector(httpx.Response(200)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [(REQUEST, True), ("att_" + "a" * 32, True), ("receipt.json", False), ("req_1", False)],
)
def test_an_id_is_told_from_a_file(name: str, expected: bool) -> None:
    assert is_receipt_id(name) is expected


def test_a_receipt_is_found_in_an_answer_streamed_or_not() -> None:
    receipt = {"version": 1}
    plain = json.dumps({"choices": [], "receipt": receipt}).encode()
    streamed = b'data: {"choices":[]}\n\ndata: ' + plain + b"\n\ndata: [DONE]\n\n"
    assert json.loads(receipt_in(plain) or b"") == receipt
    assert json.loads(receipt_in(streamed) or b"") == receipt
    assert receipt_in(json.dumps(receipt).encode()) is None
    assert receipt_in(b"data: nothing") is None
    assert receipt_in(b"\xff") is None
