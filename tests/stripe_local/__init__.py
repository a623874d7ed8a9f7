"""A stateful local Stripe that the real `stripe` SDK talks to over HTTP. No real money, ever.

It keeps the promises that billing relies on: an idempotency key answers the same for the same body
and refuses another one, events are signed and may come twice or in another order, an effect may
happen although its answer never arrives, and balances follow from balance transactions. A control
API under `/control` plays the customer, the bank and the network.

`tests/component/stripe` runs against it and, where DARKBLOOM_TEST_STRIPE_KEY holds a test-mode key,
against Stripe itself: what a hosted page would need a person for runs here only.
"""
