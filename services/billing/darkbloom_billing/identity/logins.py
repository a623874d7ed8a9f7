"""Sign-in: from a login token to a user with an account."""

from collections.abc import Callable, Collection

from darkbloom_edge.ids import id_text
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import NotFoundError

from darkbloom_billing.identity.errors import AccountClosingError
from darkbloom_billing.identity.issuers import IssuerKeys
from darkbloom_billing.identity.model import SignedIn, User
from darkbloom_billing.identity.oidc import is_listed, read_head, verify
from darkbloom_billing.identity.ports import UserStore

_ID_BYTES = 16


class Logins:
    """Who has signed in.

    Args:
        issuers: find the keys of tokens.
        store: users.
        clock: time.
        entropy: random bytes for ids.
        admin_emails: of administrators, where their issuer vouches for them.
    """

    def __init__(
        self,
        issuers: IssuerKeys,
        store: UserStore,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        admin_emails: Collection[str],
    ) -> None:
        self._issuers = issuers
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._admins = frozenset(email.lower() for email in admin_emails)

    async def verify(self, token: str) -> SignedIn:
        """Return the user of a token; made with an account on first use.

        Raises:
            LoginInvalidError: The token does not count.
            AccountClosingError: The account is being deleted.
            UnavailableError: The issuer's keys cannot be read.
        """
        issuer, key = await self._issuers.find(read_head(token))
        now = self._clock.now()
        claims = verify(token, key, issuer, now=now)
        user, generation = await self._store.sign_in(
            claims,
            user_id=id_text("user", self._entropy(_ID_BYTES)),
            account_id=id_text("acct", self._entropy(_ID_BYTES)),
            now=now,
        )
        if user.closing:
            raise AccountClosingError("account is being deleted")
        return SignedIn(
            user=user,
            admin=is_listed(claims, self._admins),
            expires_at=claims.expires_at,
            generation=generation,
        )

    async def profile(self, user_id: str) -> User:
        """Return a user.

        Raises:
            NotFoundError: No such user.
        """
        user = await self._store.user(user_id)
        if user is None:
            raise NotFoundError("no such user")
        return user

    async def close(self, account_id: str) -> None:
        """Mark an account for deletion; every credential of it ends.

        Raises:
            NotFoundError: No such account.
        """
        if not await self._store.close_account(account_id, now=self._clock.now()):
            raise NotFoundError("no such account")
