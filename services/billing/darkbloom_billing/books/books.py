"""Every rare command of the books, each one transaction under one key.

All methods may be repeated: the same id with the same contents answers `replayed` with the stored
result, with other contents it raises ConflictError. `also` writes side rows in the transaction of
the first delivery. Amounts are micro-USD above 0. Each raises StoreUnavailableError where the store
does not answer: whether it was written is unknown then, and repeating is safe.
"""

from darkbloom_billing.books.accounts import Accounts
from darkbloom_billing.books.capital import Capital
from darkbloom_billing.books.deposits import Deposits
from darkbloom_billing.books.disputes import Disputes
from darkbloom_billing.books.endings import Endings
from darkbloom_billing.books.programmes import Programmes
from darkbloom_billing.books.withdrawals import Withdrawals


class Books(Accounts, Deposits, Disputes, Capital, Programmes, Withdrawals, Endings):
    """The rare commands by families; holds and settlements are the hot path's."""
