"""HTTP front of the mesh: the OpenAI-compatible surface, and the edge of every sealed request.

Owns no table. It turns keys into accounts, bodies into canonical requests and offers into sealed
boxes; it opens what comes back, checks it against the provider's signed terminal, and countersigns.
Prompts and completions live in this process's memory and nowhere else on our side.
"""
