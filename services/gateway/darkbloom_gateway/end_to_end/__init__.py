"""End-to-end mode: the consumer seals to the provider, and this gateway only carries.

Two calls: one asks for an offer, one brings the sealed request. Nothing is kept here in between:
the router keeps the reservation, and any worker claims it. What passes is ciphertext that this
process has no key for.
"""
