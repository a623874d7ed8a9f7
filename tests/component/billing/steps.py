"""Random commands over all of billing's money, for the bookkeeper and for the database."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from hypothesis import strategies as st

WHO = ("acct_a", "acct_b", "acct_c")
_PAYMENTS = tuple(f"cs_{n}" for n in range(4))
_REQUESTS = tuple(range(12))
_FEW = tuple("1234")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command. `ref` is its own id, `other` what it is about."""

    kind: str
    ref: str = ""
    who: str = ""
    other: str = ""
    amount: int = 0
    extra: int = 0
    flag: bool = False

    def key(self) -> tuple[str, ...]:
        """What makes two deliveries the same command: ends of one thing share a key."""
        if self.kind == "reinstated":
            return self.kind, self.other, self.ref
        family = {"won": "ends", "lost": "ends", "paid_out": "arrivals", "refused": "arrivals"}
        return family.get(self.kind, self.kind), self.ref


_amounts = st.integers(1, 60) | st.integers(100, 900)
_who = st.sampled_from(WHO)
_ids = st.sampled_from(_FEW)
_payments = st.sampled_from(_PAYMENTS)
_requests = st.sampled_from(_REQUESTS).map(str)


def _kind(name: str, **fields: st.SearchStrategy) -> st.SearchStrategy[Step]:
    return st.builds(Step, kind=st.just(name), **fields)


COMMANDS = {
    "deposit": _kind(
        "deposit", ref=_payments, who=_who, amount=st.integers(300, 2000), extra=st.integers(0, 30)
    ),
    "fee": _kind("fee", ref=_ids, amount=_amounts, flag=st.booleans()),
    "refund": _kind("refund", ref=_ids, other=_payments, amount=_amounts),
    "dispute": _kind("dispute", ref=_ids, other=_payments, amount=st.integers(1, 2000)),
    "won": _kind("won", ref=_requests),
    "lost": _kind("lost", ref=_requests),
    "reinstated": _kind("reinstated", ref=_ids, other=_requests, amount=st.integers(1, 900)),
    "hold": _kind("hold", ref=_requests, who=_who, amount=_amounts),
    "extend": _kind(
        "extend",
        ref=_requests,
        amount=_amounts,
        extra=st.sampled_from([1, 1, 2, 2, 3]),
        flag=st.booleans(),
    ),
    "settle": _kind("settle", ref=_requests, who=_who, amount=_amounts),
    "release": _kind("release", ref=_requests),
    "mature": _kind("mature"),
    "fund": _kind(
        "fund", ref=_ids, other=st.sampled_from(["promo", "fees", "base"]), amount=_amounts
    ),
    "grant": _kind("grant", ref=_ids, who=_who, amount=_amounts),
    "reward": _kind("reward", ref=_ids, who=_who, amount=_amounts),
    "top_up": _kind("top_up", ref=_ids, amount=_amounts),
    "cover": _kind("cover", ref=_ids, amount=_amounts),
    "freeze": _kind("freeze", ref=_ids, who=_who, flag=st.booleans()),
    "submit": _kind("submit", ref=_ids, who=_who, amount=_amounts, extra=st.integers(0, 20)),
    "paid_out": _kind("paid_out", ref=_ids, flag=st.booleans()),
    "refused": _kind("refused", ref=_ids),
    "returned": _kind("returned", ref=_ids),
    "erase": _kind("erase", ref=_ids, who=_who),
}

_BY_NUMBER = {
    "hold",
    "extend",
    "settle",
    "release",
    "submit",
    "refused",
    "paid_out",
    "returned",
} | {
    "dispute",
    "won",
    "lost",
}
# What belongs together, so that histories get beyond refusals: one id for the whole chain.
_CHAINS = (
    ("hold", "settle"),
    ("hold", "release", "settle"),
    ("hold", "settle", "mature", "submit", "paid_out", "returned"),
    ("mature", "submit", "refused", "paid_out"),
    ("mature", "submit", "paid_out"),
    ("deposit", "hold", "settle", "dispute", "lost"),
    ("deposit", "hold", "settle", "dispute", "lost", "reinstated", "reinstated"),
    ("hold", "extend", "extend", "settle"),
    ("hold", "extend", "extend", "release"),
    ("hold", "settle", "dispute", "won", "mature"),
    ("deposit", "hold", "settle", "refund", "deposit"),
    ("dispute", "submit", "lost", "cover"),
    ("grant", "reward", "top_up", "fee"),
)


@st.composite
def _chain(draw: st.DrawFn) -> list[Step]:
    number = draw(st.integers(0, 11))
    return [
        replace(
            step,
            ref=str(number) if step.kind in _BY_NUMBER else step.ref,
            other=str(number) if step.kind == "reinstated" else step.other,
        )
        for step in (draw(COMMANDS[kind]) for kind in draw(st.sampled_from(_CHAINS)))
    ]


_ANY = st.sampled_from(sorted(COMMANDS)).flatmap(COMMANDS.__getitem__).map(lambda step: [step])


def _about_the_first(step: Step) -> Step:
    """Have a step of a dispute be about the deposit that every history begins with."""
    if step.kind == "reinstated":
        return replace(step, other="100")
    return replace(step, ref="100", other="cs_0" if step.kind == "dispute" else step.other)


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Commands of every kind, many of them delivered again, at once or later."""
    steps = [
        Step(kind="fund", ref="promo", other="promo", amount=1000),
        Step(kind="fund", ref="base", other="base", amount=1000),
        Step(kind="deposit", ref="cs_0", who="acct_a", amount=1500),
        Step(kind="hold", ref="100", who="acct_a", amount=700),
        Step(kind="settle", ref="100", who="acct_b", amount=650),
        Step(kind="hold", ref="101", who="acct_a", amount=draw(_amounts)),
        *(draw(COMMANDS["extend"].map(partial(replace, ref="101", extra=n))) for n in (1, 2, 3)),
    ]
    chains = draw(st.lists(_chain() | _ANY, min_size=6, max_size=16))
    for step in chain.from_iterable(chains):
        steps += [step] * draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
    if draw(st.booleans()):
        lost = ("dispute", "lost", "reinstated", "reinstated")
        steps += [_about_the_first(draw(COMMANDS[kind])) for kind in lost]
    again = draw(st.lists(st.sampled_from(steps), max_size=8))
    return [*steps, *again]
