"""From the bytes of a request to a plan: the part that all inference endpoints have in common."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

from darkbloom_edge.dialects.chat_request import Lowered
from darkbloom_edge.dialects.dialect import Dialect
from darkbloom_edge.errors import RequestError

from darkbloom_gateway.catalog import Catalog
from darkbloom_gateway.errors import bad_request, of_request, unavailable
from darkbloom_gateway.model import KeyRecord, Plan
from darkbloom_gateway.planning import make_plan
from darkbloom_gateway.prompt import THREAD_BYTES
from darkbloom_gateway.self_route import read_route
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.wire import SEALED, Receive, Scope, read_body

COUNTED_INLINE_BYTES = 2048
"""Bodies above this are tokenized off the loop."""


@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """What was asked, and what it takes."""

    body: bytes
    jobs: Sequence[tuple[Lowered, int, Plan]]
    """Every answer that is wanted: its prompt, which choice of it, and what it takes."""
    catalog: Catalog

    @property
    def lowered(self) -> Lowered:
        """What all answers have in common, such as whether they are streamed."""
        return self.jobs[0][0]

    @property
    def plan(self) -> Plan:
        """What the first one takes."""
        return self.jobs[0][2]


@final
class Reader:
    """Reads requests of one dialect.

    Args:
        dialect: reads bodies.
        stage: configuration, catalog and limits.
    """

    def __init__(self, dialect: Dialect, stage: Stage) -> None:
        self._dialect = dialect
        self._stage = stage

    async def read(self, scope: Scope, receive: Receive, key: KeyRecord) -> Asked:
        """Read, parse and plan one request.

        Raises:
            ApiError: 400, 403, 404, 408, 413, 422 or 503.
            ClientGoneError: the caller left.
        """
        stage, config, clock = self._stage, self._stage.config, self._stage.clock
        body = await read_body(
            scope, receive, limit=config.max_body_bytes, idle_s=config.body_idle_s
        )
        started_at = clock.monotonic()
        route, machine = read_route(scope["headers"], self_route_only=key.self_route_only)
        catalog = stage.shelf.catalog
        if catalog is None:
            raise unavailable("the model catalog is not here yet")
        try:
            if len(body) > THREAD_BYTES:
                lowered = await asyncio.to_thread(self._dialect.lower, body)
            else:
                lowered = self._dialect.lower(body)
        except RequestError as error:
            raise of_request(error) from None
        self._check_remote(lowered, scope)
        plan = partial(
            make_plan,
            key=key,
            catalog=catalog,
            tiers=stage.tiers,
            choices=len(lowered.jobs),
            default_bound=config.default_output_bound,
            now=clock.now(),
            route=route,
            machine=machine,
            hint_secret=stage.hint_secret,
            tokenizers=stage.tokenizers,
        )
        with stage.spans.step("registry.resolve"):
            if len(body) > (COUNTED_INLINE_BYTES if stage.tokenizers.any else THREAD_BYTES):
                plans = await asyncio.to_thread(_planned, plan, lowered)
            else:
                plans = _planned(plan, lowered)
        jobs = [(one, choice, plans[id(one)]) for one, choice in lowered.jobs]
        stage.meters.phase("parse", clock.monotonic() - started_at)
        return Asked(body, jobs, catalog)

    def _check_remote(self, lowered: Lowered, scope: Scope) -> None:
        """Refuse addresses where nothing is fetched; what came sealed is named to nobody."""
        if not lowered.remote:
            return
        param = lowered.remote[0].param
        if scope.get(SEALED):
            raise bad_request(
                f"{param} must be a data: url, for a sealed request nothing is fetched", param=param
            )
        if not self._stage.fetcher.enabled:
            raise bad_request(f"{param} must be a data: url, nothing is fetched here", param=param)


def _planned(plan: Callable[[Lowered], Plan], lowered: Lowered) -> Mapping[int, Plan]:
    """Plan each prompt once, by its identity."""
    return {id(one): plan(one) for one in (lowered, *lowered.others)}
