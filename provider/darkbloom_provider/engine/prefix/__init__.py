"""The prefix cache: what has been read of a prompt is not read again for the same account.

| Module | Holds |
|---|---|
| `chain` | which prefix a block of KV belongs to: hashes over scope, weights and tokens |
| `memory` | the memory tier: blocks under a byte cap, the least recently used go first |
| `cache` | what the engine asks: plan, stage, find, keep; counters |

Nothing here knows mlx: a block is a thing of so many bytes (`engine/mlx/prefix.py` makes them).
"""
