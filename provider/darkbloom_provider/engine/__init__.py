"""The engine: requests become tokens, in this process, and nothing of them outlives the answer.

`interface` is what the agent sees. `local` runs real models on one engine thread; `scripted` plays
a script for builds of the `dev/` namespace; `mlx` is the only package that imports mlx.
"""
