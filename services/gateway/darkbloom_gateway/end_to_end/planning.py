"""From a request for an offer to a plan, and what the worker that claims it must know of it."""

from datetime import datetime
from typing import Annotated

import msgspec
from darkbloom_edge.documents import Count, Name
from darkbloom_edge.offers import OfferRequest
from msgspec import Meta

from darkbloom_gateway.catalog import Build, Catalog
from darkbloom_gateway.errors import (
    bad_request,
    body_too_large,
    internal,
    model_not_allowed,
    offer_expired,
)
from darkbloom_gateway.model import MAX_BOUND, KeyRecord, Plan
from darkbloom_gateway.self_route import Route
from darkbloom_gateway.tiers import Tiers

MAX_CONTEXT_BYTES = 4096


class OfferContext(msgspec.Struct, frozen=True, kw_only=True):
    """A plan on its way from one worker to another, by way of the router that keeps the offer."""

    version: Annotated[int, Meta(ge=1, le=1)] = 1
    slot: Name
    """Name under which the offer is counted as open."""
    request_id: Annotated[str, Meta(pattern=r"^req_[0-9a-f]{32}\Z")]
    key_id: str
    requested_model: Name
    build: Name
    fallback_build: str
    prompt_tokens: Count
    prompt_bound: Count
    output_bound: Count
    asked_bound: bool
    """Whether the client named the output bound."""
    body_bytes: Count
    route: Route


_decoder = msgspec.msgpack.Decoder(OfferContext)


def plan_offer(
    asked: OfferRequest,
    key: KeyRecord,
    catalog: Catalog,
    tiers: Tiers,
    *,
    default_bound: int,
    max_body_bytes: int,
    now: datetime,
    route: Route,
    machine: str,
) -> Plan:
    """Decide everything that does not need another room.

    Args:
        asked: what the client needs.
        key: who asks.
        catalog: the newest one.
        tiers: limits of key and account.
        default_bound: tokens, where neither client nor build has an output bound.
        max_body_bytes: largest sealed request.
        now: for the plan's date.
        route: whose machines may serve.
        machine: the one that is wanted; empty for any.

    Raises:
        ApiError: 400, 403, 404, 413 or 503.
    """
    if not key.allows(asked.model):
        raise model_not_allowed()
    if asked.body_bytes > max_body_bytes:
        raise body_too_large(max_body_bytes)
    found = catalog.resolve(asked.model)
    _check_needs(asked, found.build)
    most = min(found.build.max_output_length or MAX_BOUND, MAX_BOUND)
    output_bound = min(asked.output_bound or found.build.max_output_length or default_bound, most)
    tools = "tools" in asked.needs
    return Plan(
        account_id=key.account_id,
        key_id=key.key_id,
        requested_model=asked.model,
        build=found.build.build_id,
        fallback_build=found.fallback_build,
        prompt_bound=asked.prompt_bound,
        output_bound=output_bound,
        prompt_estimate=asked.prompt_tokens,
        prompt_date=now.strftime("%Y-%m-%d"),
        tools=tools,
        tool_choice_mode=asked.tool_choice if tools else "",
        parallel_tool_calls=asked.parallel_tool_calls,
        json_schema="structured_outputs" in asked.needs,
        vision="vision" in asked.needs,
        claim=tiers.claim(
            key,
            prompt_estimate=asked.prompt_tokens,
            output_bound=output_bound,
            asked=asked.output_bound is not None,
        ),
        route=route,
        machine=machine,
    )


def write_context(plan: Plan, asked: OfferRequest, request_id: str, slot: str) -> bytes:
    """Write what the claiming worker must know."""
    context = OfferContext(
        slot=slot,
        request_id=request_id,
        key_id=plan.key_id,
        requested_model=plan.requested_model,
        build=plan.build,
        fallback_build=plan.fallback_build,
        prompt_tokens=plan.prompt_estimate,
        prompt_bound=plan.prompt_bound,
        output_bound=plan.output_bound,
        asked_bound=asked.output_bound is not None,
        body_bytes=asked.body_bytes,
        route=plan.route,
    )
    return msgspec.msgpack.encode(context)


def read_context(data: bytes) -> OfferContext:
    """Read what the worker that made the offer has said.

    Raises:
        ApiError: 500: it is unreadable.
    """
    if len(data) > MAX_CONTEXT_BYTES:
        raise internal()
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError):
        raise internal() from None


def restore_plan(context: OfferContext, key: KeyRecord, tiers: Tiers, now: datetime) -> Plan:
    """Return the plan that an offer was made for.

    Raises:
        ApiError: 410 where another key of the account has asked; 400 or 413 where the limits of
            this account have been lowered meanwhile.
    """
    if context.key_id != key.key_id:
        raise offer_expired()
    return Plan(
        account_id=key.account_id,
        key_id=key.key_id,
        requested_model=context.requested_model,
        build=context.build,
        fallback_build=context.fallback_build,
        prompt_bound=context.prompt_bound,
        output_bound=context.output_bound,
        prompt_estimate=context.prompt_tokens,
        prompt_date=now.strftime("%Y-%m-%d"),
        claim=tiers.claim(
            key,
            prompt_estimate=context.prompt_tokens,
            output_bound=context.output_bound,
            asked=context.asked_bound,
        ),
        route=context.route,
    )


def _check_needs(asked: OfferRequest, build: Build) -> None:
    """Refuse what the build says that it cannot do; a build without a list is asked anyway.

    Only for media it is not: whoever has never said that he sees does not.
    """
    for need in asked.needs:
        if need not in build.capabilities and (build.capabilities or need == "vision"):
            raise bad_request(f"the model does not support {need}", param="needs")
