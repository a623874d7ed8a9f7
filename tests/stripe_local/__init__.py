"""A stateful local Stripe that the real `stripe` SDK talks to over HTTP. No real money, ever.

It keeps the promises that billing relies on: an idempotency key answers the same for the same body
and refuses another one, events are signed and may come twice or in another order, an effect may
happen although its answer never arrives, and balances follow from balance transactions. A control
API under `/control` plays the customer, the bank and the network.
"""
