"""What went wrong with whom, kept by stable identity so that it survives reconnects.

Pure state machines (routing section 13): time comes in, nothing goes out. `memory.FaultMemory` is
bounded and forgets; `node` judges a machine, `pair` one build on it.
"""
