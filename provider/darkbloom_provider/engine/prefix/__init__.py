"""The prefix cache: what has been read of a prompt is not read again for the same account.

| Module | Holds |
|---|---|
| `chain` | which prefix a block of KV belongs to: hashes over scope, weights and tokens |
| `memory` | the memory tier: blocks under a byte cap, the least recently used go first |
| `cache` | what the engine asks: plan, stage, find, keep; counters |
| `disk` | the SSD tier: reads before a row begins, writes when there is time |
| `limits`, `index`, `allowance` | what it may take, what lies there, how much may be written |
| `codec` | between blocks and bytes |
| `keys`, `block_file`, `files` | names, encryption, the format, and opens that follow no link |
| `epoch` | what a build's KV depends on; drift empties its folder |

Nothing here knows mlx: a block is a thing of so many bytes (`engine/mlx/prefix.py` makes them).
"""
