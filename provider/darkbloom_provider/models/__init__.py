"""The local model store: which bytes are here, whether they are the right ones, and whether they fit.

Pure rules (`manifest`, `fit`, the `gguf_*` modules) know no clock and no network; `store` is the one
module that changes the disk, and `gguf` is the import that ties them together.
"""
