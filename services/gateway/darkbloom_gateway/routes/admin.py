"""`/v1/admin/*`: operators' writes. Each one names who asked, and leaves a row of the audit."""

import re
from datetime import UTC
from typing import Any
from uuid import uuid4

from darkbloom.billing.v1.operator_pb2 import AccountView, Invite
from darkbloom.billing.v1.price_service_pb2 import SetPriceRequest, SetPriceResponse
from darkbloom.common.v1.price_pb2 import PriceRow
from fastapi import APIRouter, Request

from darkbloom_gateway.billing_programmes import NewInvite, OperatorsClient, Write
from darkbloom_gateway.errors import ApiError, bad_request, not_found
from darkbloom_gateway.model import ADMIN_ACCOUNT, Caller
from darkbloom_gateway.routes.bodies import (
    Body,
    integer,
    moment,
    read_object,
    rfc3339,
    text,
    usd,
    usd2,
    usd6,
)
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.routes.programmes import asked

_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_MAX_USES = 1_000_000
_CREATED = 201
_MAX_FEE = 100
_ROLES = ("", "service")


class AuditedPrices:
    """Sets prices of the platform in the name of an operator."""

    def __init__(self, operators: OperatorsClient, caller: Caller) -> None:
        self._operators = operators
        self._name = operator_name(caller)

    async def set_price(self, message: SetPriceRequest) -> SetPriceResponse:
        """Set one; the answer is that of the price service."""
        cache_read = message.cache_read_micros if message.HasField("cache_read_micros") else None
        made = await self._operators.set_price(
            Write(self._name, message.request_id),
            message.build,
            message.input_micros,
            message.output_micros,
            cache_read,
        )
        return SetPriceResponse(
            price=PriceRow(
                price_id=made.price_id,
                build=message.build,
                input_micros=message.input_micros,
                output_micros=message.output_micros,
                cache_read_micros=made.cache_read_micros,
            )
        )


def make_router(plane: ControlPlane, operators: OperatorsClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    _add_money(router, plane, operators)
    _add_users(router, plane, operators)
    _add_invites(router, plane, operators)
    return router


def _add_money(router: APIRouter, plane: ControlPlane, operators: OperatorsClient) -> None:
    @router.post("/v1/admin/credit")
    async def credit(request: Request) -> Reply:
        """Give promotional credit: spendable, not withdrawable."""
        return await _credit(plane, operators, request, reward=False)

    @router.post("/v1/admin/reward")
    async def reward(request: Request) -> Reply:
        """Give a reward: spendable and withdrawable."""
        return await _credit(plane, operators, request, reward=True)


async def _credit(
    plane: ControlPlane, operators: OperatorsClient, request: Request, *, reward: bool
) -> Reply:
    caller = await plane.admin(request)
    key = request.headers.get("idempotency-key", "")
    if _KEY.fullmatch(key) is None:
        raise bad_request(
            "an Idempotency-Key of 1 to 128 printable characters is needed, so that a repeated "
            "click does not pay twice",
            param="Idempotency-Key",
        )
    body = await read_object(request)
    amount = usd(body, "amount_usd")
    note = text(body, "note", default="")
    account, email = await _account(operators, body)
    await plane.financial(caller)
    paid = await asked(
        operators.credit(
            Write(operator_name(caller), key), account.account_id, amount, note, reward=reward
        ),
        missing=_no_user(),
    )
    content: dict[str, Any] = {
        "ok": True,
        "account_id": account.account_id,
        "email": email,
        "rewarded_usd" if reward else "credited_usd": usd2(paid.credited_micros),
        "withdrawable": reward,
        "balance_after": usd6(paid.balance_micros),
    }
    if reward:
        content["withdrawable_after"] = usd6(paid.withdrawable_micros)
    return reply(content)


def _add_users(router: APIRouter, plane: ControlPlane, operators: OperatorsClient) -> None:
    @router.put("/v1/admin/users/role")
    async def set_role(request: Request) -> Reply:
        """Make an account a wholesale partner, or an ordinary one again."""
        caller = await plane.admin(request)
        body = await read_object(request)
        role = text(body, "role", default="")
        if role not in _ROLES:
            raise bad_request("role must be empty or service", param="role")
        account, email = await _account(operators, body)
        changed = await asked(
            operators.change(_write(caller), account.account_id, role=role), missing=_no_user()
        )
        return reply({**_user(changed, email), "role": changed.role})

    @router.put("/v1/admin/users/platform-fee")
    async def set_fee(request: Request) -> Reply:
        """Override the platform's fee for an account; null goes back to the platform's."""
        caller = await plane.admin(request)
        body = await read_object(request)
        if "fee_percent" not in body:
            raise bad_request("fee_percent is missing", param="fee_percent")
        fee = integer(body, "fee_percent", least=0, most=_MAX_FEE, default=-1)
        account, email = await _account(operators, body)
        changed = await asked(
            operators.change(_write(caller), account.account_id, fee_percent=fee),
            missing=_no_user(),
        )
        percent = changed.platform_fee_percent if changed.HasField("platform_fee_percent") else None
        return reply({**_user(changed, email), "fee_percent": percent})


def _add_invites(router: APIRouter, plane: ControlPlane, operators: OperatorsClient) -> None:
    @router.post("/v1/admin/invite-codes")
    async def create(request: Request) -> Reply:
        """Make an invite; without a code one is made up."""
        caller = await plane.admin(request)
        body = await read_object(request)
        new = NewInvite(
            code=text(body, "code", default="", longest=40),
            amount_micros=usd(body, "amount_usd"),
            max_uses=integer(body, "max_uses", least=1, most=_MAX_USES, default=1),
            expires_at=moment(body, "expires_at"),
        )
        await plane.financial(caller)
        key = request.headers.get("idempotency-key", "")
        if key and _KEY.fullmatch(key) is None:
            raise bad_request("must be 1 to 128 printable characters", param="Idempotency-Key")
        write = Write(operator_name(caller), f"invite:{key or uuid4().hex}")
        made = await asked(operators.create_invite(write, new), missing=_no_invite())
        return reply(_invite(made), _CREATED)

    @router.get("/v1/admin/invite-codes")
    async def list_invites(request: Request, page_token: str = "") -> Reply:
        """List invites, newest first."""
        await plane.admin(request)
        page = await asked(operators.invites(page_token[:512]), missing=_no_invite())
        content: dict[str, Any] = {"invite_codes": [_invite(found) for found in page.invites]}
        if page.next_page_token:
            content["next_page_token"] = page.next_page_token
        return reply(content)

    @router.delete("/v1/admin/invite-codes")
    async def deactivate(request: Request) -> Reply:
        """Stop an invite; what was redeemed stays."""
        caller = await plane.admin(request)
        code = text(await read_object(request), "code")
        stopped = await asked(
            operators.deactivate_invite(_write(caller), code), missing=_no_invite()
        )
        return reply({"status": "deactivated", "code": stopped.code})


async def _account(operators: OperatorsClient, body: Body) -> tuple[AccountView, str]:
    """Return the account that a body names by `email` or `account_id`, and that e-mail."""
    if body.get("email"):
        email = text(body, "email")
        return await asked(operators.account(email=email), missing=_no_user()), email
    account_id = text(body, "account_id", default="")
    if not account_id:
        raise bad_request("email is missing", param="email")
    return await asked(operators.account(account_id=account_id), missing=_no_user()), ""


def operator_name(caller: Caller) -> str:
    """Return how the audit names an administrator."""
    if caller.account_id == ADMIN_ACCOUNT:
        return "admin-key"
    return caller.email or caller.user_id or caller.account_id


def _write(caller: Caller) -> Write:
    return Write(operator_name(caller), f"http:{uuid4().hex}")


def _user(account: AccountView, email: str) -> dict[str, Any]:
    return {"status": "updated", "account_id": account.account_id, "email": email}


def _invite(invite: Invite) -> dict[str, Any]:
    expires = invite.expire_time if invite.HasField("expire_time") else None
    return {
        "code": invite.code,
        "amount_usd": usd2(invite.amount_micros),
        "max_uses": invite.max_uses,
        "used_count": invite.used_count,
        "active": invite.active,
        "expires_at": rfc3339(expires.ToDatetime(UTC)) if expires else None,
        "created_at": rfc3339(invite.create_time.ToDatetime(UTC)),
    }


def _no_user() -> ApiError:
    return not_found("nobody has this e-mail")


def _no_invite() -> ApiError:
    return not_found("there is no such invite")
