"""Who is connected, by every name under which somebody is looked for."""

from darkbloom_router.provider import Provider


class Directory:
    """Streams by id, by identity and by account.

    Streams under one identity may overlap: an old one that ends, and the new one that claimed it.
    """

    def __init__(self) -> None:
        self.providers: dict[str, Provider] = {}
        self._by_identity: dict[bytes, Provider] = {}
        """The stream that holds an identity."""
        self._same: dict[bytes, dict[str, Provider]] = {}
        """Every stream under an identity, in order of arrival."""
        self._by_account: dict[str, dict[str, Provider]] = {}

    def add(self, provider: Provider) -> None:
        """Take a stream in; it holds its identity where no other does."""
        self.providers[provider.provider_id] = provider
        self._by_identity.setdefault(provider.identity_key, provider)
        self._same.setdefault(provider.identity_key, {})[provider.provider_id] = provider

    def remove(self, provider: Provider) -> bool:
        """Forget a stream; the latest other one then holds its identity. False where unknown."""
        if self.providers.pop(provider.provider_id, None) is None:
            return False
        self._file(provider, "")
        same = self._same[provider.identity_key]
        del same[provider.provider_id]
        if not same:
            del self._same[provider.identity_key]
        if self._by_identity.get(provider.identity_key) is provider:
            del self._by_identity[provider.identity_key]
            if same:
                self._by_identity[provider.identity_key] = next(reversed(same.values()))
        return True

    def claim(self, provider: Provider) -> Provider | None:
        """Give the identity to a stream that has just proven it; returns the stream replaced."""
        holder = self._by_identity.get(provider.identity_key)
        self._by_identity[provider.identity_key] = provider
        return holder if holder is not provider else None

    def holder(self, identity_key: bytes) -> Provider | None:
        """Return the stream that holds an identity."""
        return self._by_identity.get(identity_key)

    def machines_of(self, account_id: str) -> list[Provider]:
        """Return the machines that an account has connected."""
        return list(self._by_account.get(account_id, {}).values()) if account_id else []

    def has_machines(self, account_id: str) -> bool:
        """Return whether an account has any machine connected."""
        return account_id in self._by_account

    def refile(self, provider: Provider) -> None:
        """File a stream under the account that it is linked to now."""
        if provider.indexed_account != provider.account_id:
            self._file(provider, provider.account_id)

    def _file(self, provider: Provider, account_id: str) -> None:
        old = self._by_account.get(provider.indexed_account)
        if old is not None:
            old.pop(provider.provider_id, None)
            if not old:
                del self._by_account[provider.indexed_account]
        provider.indexed_account = account_id
        if account_id:
            self._by_account.setdefault(account_id, {})[provider.provider_id] = provider
