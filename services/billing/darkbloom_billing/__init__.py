"""Accounts, keys, prices and the double-entry ledger."""
