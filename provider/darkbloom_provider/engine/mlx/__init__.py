"""The adapter to mlx and mlx-lm, and the only package that imports them.

Written against mlx-lm 0.32.2 exactly: the caches that rows share change between its minor versions,
and rows must never see each other, so any other pin has to pass the solo-equals-batched tests
first. All calls for one model happen on one thread, because streams of mlx belong to the thread
that uses them.

| Module | Holds |
|---|---|
| `loader` | weights from a folder, and what the adapter refuses |
| `batch` | rows: which waits, which is read next, which decodes |
| `prefill` | one prompt on its way into its own KV, chunk by chunk |
| `prefix` | KV of a prompt's beginning, cut into blocks and put together again |
| `decoding` | the rows that decode together, one token each a step |
| `selftest` | a first answer after each load, and how fast it came |
| `choosing` | from logits to a token: processors, samplers, log probabilities |
"""
