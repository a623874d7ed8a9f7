"""A fleet in one process: the router's own parts over a virtual clock, and models of the rest.

Dispatch, queues, gates, ranking, fault memory and warm pool are the ones that run in production;
only machines, networks, gateways and time are modelled. `python -m darkbloom_router.simulate`.
"""
