"""Invites and referrals: what an account may get that nobody has paid in.

Money of programmes comes out of funded budgets only, so the worst that a mistake or an attack can
take is what two operators have approved.
"""
