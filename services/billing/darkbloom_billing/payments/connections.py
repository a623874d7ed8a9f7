"""Connected accounts: onboarding, the mirror of their status, links into Stripe."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, MeshError

from darkbloom_billing.books import Books
from darkbloom_billing.payments.deposits import fingerprint
from darkbloom_billing.payments.errors import PayoutRefusedError, Refusal, StripeFailedError
from darkbloom_billing.payments.model import Connected, Fault, PayoutAccount
from darkbloom_billing.payments.ports import PayoutRail
from darkbloom_billing.payments.store.payouts import PostgresPayouts

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where onboarding leads back to, and where an account is that does not say."""

    return_url: str
    refresh_url: str
    country: str


class Connections:
    """Where the earnings of accounts may go.

    Args:
        books: Keeps the fingerprints of banks.
        store: Connected accounts.
        rail: Stripe Connect.
        clock: Time.
        links: Where onboarding leads back to.
    """

    def __init__(
        self, books: Books, store: PostgresPayouts, rail: PayoutRail, clock: Clock, links: Links
    ) -> None:
        self._books = books
        self._store = store
        self._rail = rail
        self._clock = clock
        self._links = links

    async def onboard(
        self, account_id: str, return_url: str, refresh_url: str, *, country: str, email: str
    ) -> tuple[str, PayoutAccount]:
        """Return where to go on, and the account; its id is kept before the link is shown.

        Raises:
            InvalidArgumentError: An address leads to neither our own host nor this machine.
            NotFoundError: No such account.
            PayoutRefusedError: The connected account is gone, or another has to take its place:
                neither country nor agreement of one can be changed.
            StripeFailedError: Stripe did not answer; repeating is safe.
        """
        back = _allowed(return_url, self._links.return_url, "return_url")
        again = _allowed(refresh_url, self._links.refresh_url, "refresh_url")
        await self._books.wallets(account_id)
        known = await self._store.account(account_id)
        if known is None:
            past = await self._store.past_accounts(account_id)
            where = country or self._links.country
            made = await self._rail.create_account(
                account_id, where, email, f"acct-{account_id}-{past}"
            )
            await self._store.add_account(account_id, made, where, now=self._clock.now())
            known = await self.linked(account_id)
        else:
            if country and country != known.country:
                raise PayoutRefusedError(Refusal.RECREATE_REQUIRED)
            await self.usable(known)
        try:
            link = await self._rail.onboarding_link(known.stripe_account_id, back, again)
        except StripeFailedError as error:
            raise _refused_if_gone(error) from None
        return link, known

    async def account(self, account_id: str, *, refresh: bool) -> PayoutAccount | None:
        """Return the connected account as mirrored, read anew where asked; None: there is none."""
        known = await self._store.account(account_id)
        if known is None or not refresh:
            return known
        await self.mirror(known)
        return await self._store.account(account_id)

    async def dashboard(self, account_id: str) -> str:
        """Return where the holder sees the account at Stripe; raises as `onboard`."""
        known = await self.linked(account_id)
        try:
            return await self._rail.dashboard_link(known.stripe_account_id)
        except StripeFailedError as error:
            if error.fault is Fault.REFUSED:
                # Stripe opens its dashboard only to who has finished onboarding.
                raise PayoutRefusedError(Refusal.NOT_ONBOARDED) from None
            raise _refused_if_gone(error) from None

    async def unlink(self, account_id: str) -> None:
        """Unlink the connected account; what runs goes on."""
        await self._store.unlink(account_id, now=self._clock.now())

    async def changed(self, stripe_account_id: str) -> None:
        """Mirror a connected account that changed; one that is not ours is left."""
        known = await self._store.by_stripe(stripe_account_id)
        if known is not None:
            await self.mirror(known)

    async def linked(self, account_id: str) -> PayoutAccount:
        """Return the connected account.

        Raises:
            PayoutRefusedError: There is none.
        """
        known = await self._store.account(account_id)
        if known is None:
            raise PayoutRefusedError(Refusal.NOT_ONBOARDED)
        return known

    async def usable(self, known: PayoutAccount) -> Connected:
        """Return a connected account as `mirror`, if it can be paid to for good.

        Raises:
            PayoutRefusedError: Also: it has an agreement that its country no longer has.
        """
        found = await self.mirror(known)
        if not found.agreement_fits:
            raise PayoutRefusedError(Refusal.RECREATE_REQUIRED)
        return found

    async def mirror(self, known: PayoutAccount) -> Connected:
        """Read a connected account from Stripe and keep what it says.

        Raises:
            PayoutRefusedError: Stripe does not know it any more.
            StripeFailedError: Stripe did not answer.
        """
        try:
            found = await self._rail.account(known.stripe_account_id)
        except StripeFailedError as error:
            raise _refused_if_gone(error) from None
        await self._store.mirror(found, now=self._clock.now())
        if found.fingerprint:
            await self._books.add_fingerprint(
                known.account_id, "bank", fingerprint(found.fingerprint)
            )
        return found


def _refused_if_gone(error: StripeFailedError) -> MeshError:
    return PayoutRefusedError(Refusal.ACCOUNT_GONE) if error.fault is Fault.GONE else error


def _allowed(given: str, configured: str, field: str) -> str:
    """Return where to lead back to: a stranger's host would make us an open redirect."""
    if not given:
        return configured
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidArgumentError("is not a url", field) from None
    ours = {urlsplit(configured).hostname} | _LOCAL
    if parts.scheme not in {"http", "https"} or host not in ours or parts.username is not None:
        raise InvalidArgumentError("must lead to the configured host or to localhost", field)
    return given
