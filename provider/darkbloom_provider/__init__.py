"""The provider agent: one machine that answers sealed requests with its own engine, and earns.

It connects out to a router and listens on nothing. Plaintext exists here and at the edge only; the
encryption key K lives in this process's memory and dies with it.
"""
