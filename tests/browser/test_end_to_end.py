"""End-to-end mode in the page, before gateways that lie: each lie is found, and by what it is."""

import pytest

from tests.browser.person import Person

# A gateway that lies is played by the page's own `fetch`; the page's code is what is under test.
_LIE = """
const lie = arguments[0];
const honest = window.fetch.bind(window);
window.sealedRequests = 0;
const decode = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const encode = (bytes) => btoa(String.fromCharCode(...bytes));
const rewrite = (text, change) => {
  const document = JSON.parse(new TextDecoder().decode(decode(text)));
  change(document);
  return encode(new TextEncoder().encode(JSON.stringify(document)));
};
const LIES = {
  swapped_key: (offer) => {
    offer.verdict.document = rewrite(offer.verdict.document, (verdict) => {
      verdict.encryption_key = encode(new Uint8Array(32).fill(9));
    });
  },
  replayed_offer: (offer) => { Object.assign(offer, window.keptOffer); },
  forged_offer: (offer) => {
    offer.offer.document = rewrite(offer.offer.document, (document) => {
      document.output_bound = 1;
    });
  },
};
async function records(answer, kind) {
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const view = new DataView(bytes.buffer);
  const kept = [];
  for (let at = 0; at < bytes.length;) {
    const [what, size] = [bytes[at], 9 + view.getUint32(at + 5)];
    const record = bytes.slice(at, at + size);
    if (kind === "altered_chunk" && what === 2) record[size - 1] ^= 1;
    if (kind === "wrong_count" && what === 2) record[4] += 1;
    if (!(kind === "dropped_receipt" && what === 4)) kept.push(record);
    at += size;
  }
  return new Response(new Blob(kept), { status: answer.status, headers: answer.headers });
}
window.fetch = async (path, options) => {
  const answer = await honest(path, options);
  if (path === "/v1/offers") {
    const offer = await answer.json();
    if (lie in LIES) LIES[lie](offer);
    window.keptOffer ??= structuredClone(offer);
    return new Response(JSON.stringify(offer), { status: answer.status, headers: answer.headers });
  }
  if (path !== "/v1/offers/answer") return answer;
  window.sealedRequests += 1;
  return records(answer, lie);
};
"""
BEFORE = "refused before anything was sealed: "


def ask(known: Person, lie: str) -> None:
    browser = known.browser
    known.go("chat")
    browser.script(_LIE, lie)
    browser.find("//select/option[@value='end']").click()
    browser.fill("Message", "hello there")
    browser.press("Send")


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        ("swapped_key", BEFORE + "offer and verdict do not belong together"),
        ("forged_offer", BEFORE + "the offer is not signed by the gateway"),
    ],
    ids=["swapped_key", "forged_offer"],
)
def test_nothing_is_sealed_under_papers_that_do_not_hold(
    known: Person, lie: str, found: str
) -> None:
    ask(known, lie)
    known.browser.shows(found)

    assert known.browser.script("return window.sealedRequests") == 0
    assert "quiet mesh" not in known.browser.text


def test_an_old_offer_is_not_taken_for_a_new_one(known: Person) -> None:
    browser = known.browser
    ask(known, "none")
    browser.find("//summary[.='Who answered']")
    browser.script(_LIE, "replayed_offer")
    browser.fill("Message", "and again")
    browser.press("Send")

    browser.shows(BEFORE + "the offer is not to this question")
    assert browser.script("return window.sealedRequests") == 0


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        ("altered_chunk", "a box of the answer is not authentic"),
        ("wrong_count", "the machine broke the rules: its counts do not fit"),
        ("dropped_receipt", "the answer was cut off"),
    ],
    ids=["altered_chunk", "wrong_count", "dropped_receipt"],
)
def test_an_answer_that_was_touched_is_not_passed_off_as_proven(
    known: Person, lie: str, found: str
) -> None:
    ask(known, lie)
    known.browser.shows(found)

    assert known.browser.script("return window.sealedRequests") == 1
    assert "Who answered" not in known.browser.text
