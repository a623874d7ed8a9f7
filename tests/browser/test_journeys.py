"""What people do with the console, in a real browser, before a real mesh."""

import httpx
import pytest

from tests.browser.driver import PHONE
from tests.browser.person import OWNER, Person

RECENT = "/v1/me/earnings"

PAGES = ("", "chat", "keys", "money", "usage", "machines", "earnings", "network", "account", "link")


def test_somebody_signs_in_and_out_again(person: Person) -> None:
    browser = person.browser
    person.go("keys")
    browser.shows("Sign in to see this page.")
    person.sign_in("ann@example.org")

    assert browser.url == f"{person.mesh.url}/console/keys"
    assert "ann@example.org" in browser.text
    browser.press("Sign out")
    browser.shows("Private inference on other people's Macs.")
    assert browser.script("return sessionStorage.length") == 0
    assert browser.script("return document.cookie") == ""


def test_a_sign_in_that_this_tab_has_not_begun_is_refused(person: Person) -> None:
    person.go("callback?code=stolen&state=forged")

    person.browser.shows("this sign-in was not begun in this tab")


@pytest.mark.parametrize("mode", ["open", "sealed", "end"])
def test_a_question_is_answered_and_its_receipt_checked(known: Person, mode: str) -> None:
    browser = known.browser
    known.go("chat")
    browser.find(f"//select/option[@value='{mode}']").click()
    browser.fill("Message", "hello there")
    browser.press("Send")
    browser.find("//summary[.='Who answered']").click()
    browser.press("Check the receipt")
    page = browser.shows("10 checks hold, none fails; 1 could not be checked here.")

    assert "the quiet mesh carries sealed words" in page
    assert "unattested machine" in page
    assert browser.complaints() == []
    known.look(f"chat-{mode}")


def test_an_answer_can_be_stopped(known: Person) -> None:
    browser = known.browser
    known.go("chat")
    browser.fill("Message", '/script {"tokens": 400, "interval_s": 0.05}')
    browser.press("Send")
    browser.find("//li[@class='assistant']//div[@class='words'][contains(., 'quiet')]")
    browser.press("Stop")

    browser.shows("Stopped. What had come was paid for.")
    browser.find("//button[.='Send' and not(@hidden)]")


def test_text_of_a_stranger_stays_text(known: Person) -> None:
    browser = known.browser
    known.go("chat")
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    browser.fill("Message", attack)
    browser.press("Send")
    browser.find("//summary[.='Who answered']")

    assert attack in browser.text
    assert browser.all("//main//img | //main//script") == []


def test_a_key_is_made_shown_once_used_exchanged_and_revoked(known: Person) -> None:
    browser = known.browser
    known.go("keys")
    browser.fill("Name", "for the robot")
    browser.fill("Spend limit in $", "1.5")
    browser.press("Create key")
    secret = browser.find("//dialog//code").text
    known.look("key-made")
    browser.press("Done")
    card = "//section[h3[starts-with(., 'for the robot')]]"
    assert "$1.5 for ever, $1.5 left" in browser.find(card).text
    assert secret not in browser.text
    assert models(known, secret) == 200

    browser.press("New secret", card)
    browser.press("Make a new secret")
    browser.shows("The key's new secret")
    newer = browser.find("//dialog//code").text
    browser.press("Done")
    assert (models(known, secret), models(known, newer)) == (401, 200)

    browser.press("Revoke", card)
    browser.press("Revoke", "//dialog")
    browser.until(lambda: not browser.all(card), "the key is gone")
    assert models(known, newer) == 401


def models(known: Person, secret: str) -> int:
    """Use a key."""
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.get(f"{known.mesh.url}/v1/models", headers=headers, timeout=30).status_code


def test_money_goes_in_at_the_card_page_and_usage_moves(known: Person) -> None:
    browser = known.browser
    before = known.api("/v1/payments/balance")["purchased_micro_usd"]
    known.go("money")
    browser.fill("Amount in $", "12.50")
    browser.press("Pay by card")
    browser.shows("No real money.")
    browser.find("//button[@value='pay']").click()
    browser.shows("Paid. The money is here.")
    browser.settled()

    after = known.api("/v1/payments/balance")["purchased_micro_usd"]
    assert after - before == 12_500_000
    browser.shows("stripe deposit")
    known.look("money-paid")

    asked = len(known.api("/v1/payments/usage")["usage"])
    known.go("chat")
    browser.fill("Message", "and now?")
    browser.press("Send")
    browser.find("//summary[.='Who answered']")
    browser.until(lambda: len(known.api("/v1/payments/usage")["usage"]) == asked + 1, "usage moves")
    known.go("usage")
    assert f"{asked + 1}\nrequests" in browser.text
    known.look("usage-moved")


def test_leaving_the_card_page_pays_nothing(known: Person) -> None:
    browser = known.browser
    known.go("money")
    browser.press("$25")
    browser.press("Pay by card")
    browser.find("//button[@value='leave']").click()

    browser.shows("Nothing was paid.")


def test_a_machine_is_linked_by_the_code_that_it_shows(known: Person) -> None:
    browser = known.browser
    with httpx.Client(base_url=known.mesh.url, timeout=30) as machine:
        asked = machine.post("/v1/device/code", json={"machine_name": "studio <b>"}).json()
        assert asked["verification_uri"] == f"{known.mesh.url}/console/link"
        browser.open(asked["verification_uri_complete"])
        browser.settled()
        # Whatever the address says, a person types what the machine shows.
        browser.fill("Code", asked["user_code"])
        browser.press("Look at it")
        browser.shows("Is this your machine?")
        assert "studio <b>" in browser.text
        known.look("link-found")
        browser.press("Approve")
        browser.shows("Done: studio <b> may now earn for this account.")
        token = machine.post("/v1/device/token", json={"device_code": asked["device_code"]}).json()

    assert token["status"] == "authorized"
    known.go("machines")
    assert "studio <b>" in browser.text


def test_a_code_that_nobody_shows_is_refused(known: Person) -> None:
    known.go("link")
    known.browser.fill("Code", "ABCD-EFGH")
    known.browser.press("Look at it")

    known.browser.shows("this code is not known")


def test_an_owner_sees_how_his_machine_stands_and_checks_its_evidence(owner: Person) -> None:
    browser = owner.browser
    owner.go("machines")
    browser.shows("Every gate is open: requests come as they are asked.")
    browser.press("Check its evidence")
    page = browser.shows("none fails")

    for claim in ("verdict signed", "verdict names this machine", "evidence: registration"):
        assert f"✓\n{claim}" in page
    assert "✓\nattested hardware" not in page
    owner.look("machine-checked")


@pytest.mark.parametrize("page", ["", "machines", "earnings"])
def test_the_pages_of_an_owner_are_for_everybody_too(owner: Person, page: str) -> None:
    owner.browser.until(lambda: owner.api(RECENT, email=OWNER)["earnings"], "it has earned")
    owner.go(page)
    owner.look(f"owner-{page or 'home'}")

    assert owner.faults() == []
    assert owner.browser.complaints() == []


def test_anybody_checks_a_provider_and_the_log(person: Person) -> None:
    browser = person.browser
    person.go("network")
    browser.press("Check it")
    page = browser.shows("none fails")
    assert "✓\nverdict signed" in page
    assert "✓\nevidence: challenge" in page
    browser.press("Check the log")
    browser.shows("this browser has not looked before; it remembers this head")
    browser.press("Check the log")
    page = browser.shows("✓\nit only grew")
    assert "✓\nverdict key" in page
    person.look("network-checked")


def test_a_log_that_forgot_something_is_caught(person: Person) -> None:
    browser = person.browser
    person.go("network")
    browser.script(
        "localStorage.setItem('darkbloom.log-head', JSON.stringify("
        "{size: 2, root: '00'.repeat(32), time: '2026-01-01T00:00:00Z'}))"
    )
    browser.press("Check the log")

    browser.shows("what this browser saw before is not a part of it")


def test_a_phone_has_a_menu_and_colours_are_remembered(known: Person) -> None:
    browser = known.browser
    browser.size(*PHONE)
    known.go("")
    assert not browser.script("return document.querySelector('nav a').offsetParent")
    browser.press("Menu")
    browser.press("Usage", "//nav")
    browser.shows("Newest requests")
    assert browser.url == f"{known.mesh.url}/console/usage"
    browser.find("//button[@aria-label='Switch to dark colours']").click()
    known.go("keys")
    assert browser.script("return document.documentElement.dataset.theme") == "dark"


def test_an_error_is_shown_with_its_request(known: Person) -> None:
    known.go("keys")
    known.browser.fill("Spend limit in $", "9999999")
    known.browser.press("Create key")

    known.browser.shows("limit_usd must be from 0 to 1000000, with at most 6 decimals — request ")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_for_everybody_on_every_screen(known: Person, page: str) -> None:
    known.go(page)
    known.look(f"page-{page or 'home'}")

    assert known.faults() == []
    assert known.browser.complaints() == []
    assert known.browser.all("//main//*[contains(@class, 'fault') and normalize-space(.)]") == []


@pytest.mark.parametrize("page", ["", "keys", "network"])
def test_the_same_for_somebody_who_is_not_signed_in(person: Person, page: str) -> None:
    person.go(page)
    person.look(f"stranger-{page or 'home'}")

    assert person.faults() == []
    assert person.browser.complaints() == []
