"""End-to-end mode at the gateway: who ends the money of an offer, and what a caller can hold up."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from darkbloom.common.v1.frame_pb2 import Frame
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom_edge.boxes import KEY_BYTES
from darkbloom_edge.ids import new_id
from darkbloom_edge.offers import offer_id
from darkbloom_gateway import kinds
from darkbloom_gateway.end_to_end.answering import Desk, _Answering
from darkbloom_gateway.end_to_end.planning import write_context
from darkbloom_gateway.end_to_end.relay import Relay
from darkbloom_gateway.end_to_end.searching import Search
from darkbloom_gateway.end_to_end.slots import GRACE_S, RENEW_S, SEARCH_S, Slots
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.mailbox import Mailbox
from darkbloom_gateway.model import Hold, KeyRecord, Price, SignedBytes
from darkbloom_gateway.prompt import SealedBody
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock, settle

from tests.unit.gateway.test_end_to_end import KEY, SIGNED, TIERS, asked, attempt, planned

PRICE = Price("price_1", "b", 1, 1, 1, 1)
ATTEMPT = new_id("att", bytes(16))


class Link:
    """A lane that remembers, and answers each OPEN or CLAIM by what a test says."""

    initial_credit = 32
    tag = "0" * 16

    def __init__(self, answer: Callable[["Link", int], None] | None = None) -> None:
        self.sent: list[tuple[int, Any]] = []
        self.mailbox: Any = None
        self._answer = answer

    def join(self, mailbox: Mailbox, *, late: bool = False) -> int:
        self.mailbox = mailbox
        return 7

    def send(self, kind: int, stream: int, message: Any) -> None:
        self.sent.append((kind, message))
        if kind in (kinds.OPEN, kinds.CLAIM) and self._answer is not None:
            self._answer(self, stream)

    def send_body(self, stream: int, payload: bytes) -> bool:
        return True

    def attach(self, stream: int, mailbox: Mailbox) -> None: ...

    def drop(self, stream: int) -> None: ...

    def leave(self, mailbox: Mailbox, streams: list[int]) -> None: ...

    def refuse_new(self) -> None: ...

    def of(self, kind: int) -> list[Any]:
        return [message for found, message in self.sent if found == kind]


def offers(context: bytes = b"") -> Callable[[Link, int], None]:
    """Answer with an offer."""

    def answer(link: Link, stream: int) -> None:
        made = gw.Offer(attempt_id=ATTEMPT, attempt_stream=9, build="b", context=context)
        frame = Frame(kind=kinds.OFFER, stream=stream, payload=made.SerializeToString())
        link.mailbox.put(frame)

    return answer


def is_lost(link: Link, _stream: int) -> None:
    link.mailbox.lose()


def refuses(link: Link, stream: int) -> None:
    message = gw.Refused(http_status=503, type="x", reason=gw.REFUSAL_REASON_DRAINING)
    frame = Frame(kind=kinds.REFUSED, stream=stream, payload=message.SerializeToString())
    link.mailbox.put(frame)


class Room:
    """What a gateway worker has around one call."""

    def __init__(self, *links: Link) -> None:
        self.clock = FakeClock()
        self.left = list(links)
        self.holds: list[tuple[str, asyncio.Future[Any]]] = []
        self.released: list[str] = []
        self.last_words: list[gw.SettleOpened] = []
        self.slow_hold = False
        self.check: Callable[[], None] = lambda: None
        meters = SimpleNamespace(client_gone=lambda *_a, **_k: None, first_content=print)
        self.stage: Any = SimpleNamespace(
            clock=self.clock,
            config=SimpleNamespace(
                first_content_s=300.0,
                lane_wait_s=1.0,
                trust_floor="none",
                send_stall_s=0.01,
                keepalive_s=15.0,
                body_idle_s=10.0,
                silence_s=600.0,
                max_body_bytes=1 << 25,
            ),
            links=SimpleNamespace(
                until_accepting=self._accepting,
                choose=lambda: self.left.pop(0) if len(self.left) > 1 else self.left[0],
                keeper=lambda _tag: self.left[0],
                closed=lambda _link, word, **_k: self.last_words.append(word),
                rescue=self.last_words.append,
            ),
            ledger=SimpleNamespace(
                hold=self._hold,
                release=lambda request_id, _answer, _why: self.released.append(request_id),
                record=lambda _record: None,
                give_back=lambda _id, _why: None,
            ),
            spans=SimpleNamespace(
                step=lambda _name: nullcontext(), traceparent=str, began=lambda _seconds: None
            ),
            verdicts=SimpleNamespace(check=self._judge),
            press=SimpleNamespace(
                promise=lambda _document: SIGNED, relayed=lambda *_a: SignedBytes(b"", b"", "")
            ),
            tiers=TIERS,
            entropy=iter(bytes([n]) * 16 for n in range(1, 99)).__next__,
            hint_secret=bytes(32),
            meters=meters,
        )
        self.stage.entropy = self._entropy(self.stage.entropy)

    def search(self, renew: Callable[[], Any] | None = None) -> Search:
        async def nothing() -> None: ...

        plan = replace(planned(asked()), claim=None)
        return Search(cast("Any", self.stage), KEY, asked(), plan, "slot_1", renew or nothing)

    def opens(self, *links: Link) -> list[str]:
        return [message.request_id for link in links for message in link.of(kinds.OPEN)]

    @staticmethod
    def _entropy(draw: Callable[[], bytes]) -> Callable[[int], bytes]:
        return lambda _size: draw()

    async def _accepting(self, _seconds: float) -> bool:
        return True

    def _hold(self, order: Any) -> asyncio.Future[Any]:
        answer = asyncio.get_running_loop().create_future()
        if not self.slow_hold:
            answer.set_result(Hold(order.request_id, PRICE, 5))
        self.holds.append((order.request_id, answer))
        return answer

    def _judge(self, _offer: Any, *_a: Any, **_k: Any) -> Any:
        self.check()
        return attempt().checked


async def test_nobody_is_asked_before_the_money_is_held() -> None:
    link = Link(offers())
    room = Room(link)
    room.slow_hold = True
    asking = asyncio.create_task(room.search().run())
    await settle()
    assert not link.sent
    [(request_id, answer)] = room.holds
    answer.set_result(Hold(request_id, PRICE, 5))
    assert await asking
    assert room.opens(link) == [request_id]
    assert not room.released


async def test_a_hold_that_a_lost_router_may_end_is_not_used_again() -> None:
    lost, other = Link(is_lost), Link(offers())
    room = Room(lost, other)
    await room.search().run()
    [first], [second] = room.opens(lost), room.opens(other)
    assert first != second
    assert room.released == [first]
    assert [request_id for request_id, _ in room.holds] == [first, second]


async def test_a_router_that_is_leaving_costs_no_second_hold() -> None:
    leaving, other = Link(refuses), Link(offers())
    room = Room(leaving, other)
    await room.search().run()
    assert room.opens(leaving) == room.opens(other)
    assert not room.released


async def test_an_offer_that_took_too_long_to_judge_is_not_handed_out() -> None:
    slow, other = Link(offers()), Link(offers())
    room = Room(slow, other)
    judged: Iterator[float] = iter([2.0, 0.0])

    def judge() -> None:
        room.clock.jump(next(judged))

    room.check = judge
    await room.search().run()
    [first], [second] = room.opens(slow), room.opens(other)
    assert first != second
    assert room.released == [first]


async def test_a_slot_is_renewed_while_its_offer_is_looked_for() -> None:
    link = Link()
    room = Room(link)
    renewed: list[float] = []

    async def renew() -> None:
        renewed.append(room.clock.monotonic())

    asking = asyncio.create_task(room.search(renew).run())
    for _ in range(3):
        await settle()
        await room.clock.advance(RENEW_S)
        link.mailbox.wake()
    await settle()
    offers()(link, 7)
    await asking
    assert len(renewed) == 3
    assert SEARCH_S > 2 * RENEW_S


class Store:
    """Slots, and for how long they were taken last."""

    def __init__(self) -> None:
        self.kept: dict[str, float] = {}

    async def take(self, account_id: str, name: str, seconds: float, most: int) -> bool:
        self.kept[name] = seconds
        return True

    async def free(self, account_id: str, name: str) -> None:
        if name not in self.kept:
            raise StoreUnavailableError("away")
        del self.kept[name]


class Auth:
    def __init__(self, key: KeyRecord) -> None:
        self.key = key

    async def authenticate(self, _token: str) -> KeyRecord:
        return self.key


def claimable(room: Room, store: Store, key: KeyRecord = KEY) -> Desk:
    plan = planned(asked())
    context = write_context(plan, asked(), new_id("req", bytes(16)), "slot_1")
    room.left[0]._answer = offers(context)
    store.kept["slot_1"] = 2.5
    slots = Slots(store, room.clock)
    return Desk(room.stage, cast("Any", Auth(key)), cast("Any", None), slots)


def called(*, length: int | None) -> Any:
    headers = [(b"x-darkbloom-offer", offer_id(Link.tag, ATTEMPT).encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http", "headers": headers, "path": "/v1/offers/answer"}


@pytest.mark.parametrize("length", [None, KEY_BYTES + 1000], ids=["chunked", "said"])
async def test_a_place_is_counted_for_as_long_as_the_offers_own_body_may_take(
    length: int | None,
) -> None:
    room, store = Room(Link()), Store()
    desk = claimable(room, store)
    seen: list[float] = []

    async def receive() -> Any:
        seen.append(store.kept["slot_1"])
        return {"type": "http.request", "body": b"too short", "more_body": False}

    async def send(_message: Any) -> None: ...

    with pytest.raises(ApiError):
        await _Answering(desk, called(length=length), receive, send).run()
    bound = 2.0 + (KEY_BYTES + 1000) / (512 * 1024)
    assert seen == [pytest.approx(bound + GRACE_S)]
    assert not store.kept


async def test_an_offer_claimed_under_another_key_leaves_no_place_behind() -> None:
    room, store = Room(Link()), Store()
    desk = claimable(room, store, replace(KEY, key_id="key_2"))

    async def never() -> Any:
        raise AssertionError("no body is read")

    with pytest.raises(ApiError) as raised:
        await _Answering(desk, called(length=2000), never, cast("Any", None)).run()
    assert raised.value.http_status == 410
    assert (b"x-darkbloom-retry", b"new-offer") in raised.value.headers
    assert not store.kept
    [_] = room.left[0].of(kinds.ABANDON)


async def relaying(room: Room) -> tuple[Relay, Any]:
    """A relay whose first content has come: 3 tokens; 10 were named for the prompt, 40 bound it."""
    relay = Relay(room.stage, cast("Any", room.left[0]), Mailbox())
    made = attempt()
    sealed = b"sealed"
    relay.dispatch(made, planned(asked()), SealedBody(sealed, hashlib.sha256(sealed).digest()))
    mailbox = room.left[0].mailbox
    mailbox.put(Frame(kind=kinds.CHUNK, stream=1, payload=bytes(100), tokens=3))
    return relay, made


@contextmanager
def answering(room: Room, relay: Relay) -> Iterator[_Answering]:
    desk = Desk(room.stage, cast("Any", None), cast("Any", None), cast("Any", None))

    async def send(_message: Any) -> None:
        await asyncio.Event().wait()

    try:
        yield _Answering(desk, called(length=None), cast("Any", None), send)
    finally:
        relay.abort()


async def test_who_stops_reading_pays_as_who_hangs_up_does() -> None:
    room = Room(Link())
    relay, made = await relaying(room)
    with answering(room, relay) as caller:
        assert await caller._answer(relay, made) == 499
    [cancel] = room.left[0].of(kinds.CANCEL)
    assert cancel.opened.prompt_tokens == 40


async def test_the_copy_for_another_router_has_no_terminal_and_charges_the_named_prompt() -> None:
    room = Room(Link())
    relay, _ = await relaying(room)
    await relay.begin()
    relay.left()
    relay.abort()
    [word] = room.last_words
    assert (word.opened.prompt_tokens, word.opened.completion_tokens) == (10, 3)
    assert not word.HasField("terminal")


async def test_a_provider_that_breaks_off_is_not_helped_by_who_leaves_after_it() -> None:
    room = Room(Link())
    relay, _ = await relaying(room)
    await relay.begin()
    relay.abort()
    [cancel] = room.left[0].of(kinds.CANCEL)
    assert cancel.opened.prompt_tokens == 10
