"""Accounts, keys, prices and the double-entry ledger.

Billing is the only writer of money. It reserves the worst case of a request before dispatch, checks
itself what a provider signed and what the edge opened, pays the account that it linked itself, and
keeps books that no privilege of the service could falsify.
"""
