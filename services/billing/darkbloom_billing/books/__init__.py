"""The rare commands of the books: deposits, disputes, programmes, withdrawals, maturation.

`Books` is what the rest of billing calls. Plans are pure, `core` is the one transaction shape.
"""

from darkbloom_billing.books.books import Books
from darkbloom_billing.books.core import Also
from darkbloom_billing.books.model import Budget, FeePayer, Outcome, Source, Wallets

__all__ = ["Also", "Books", "Budget", "FeePayer", "Outcome", "Source", "Wallets"]
