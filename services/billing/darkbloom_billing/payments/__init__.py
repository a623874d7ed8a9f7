"""Money in and out at Stripe: sessions, events, saved cards, connected accounts, withdrawals.

Everything that happens at Stripe is known here by an event or an answer; both are facts, and both
are written down before they act. Money itself moves only by the commands of `books`.
"""
