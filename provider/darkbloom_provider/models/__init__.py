"""The local model store: which bytes are here, whether they are right, and whether they fit.

The rules (`fit`, the `gguf_*` modules) know no clock and no network; `store` is the one module that
changes the disk, and `gguf` is the import that ties them together. Manifests are those of
`darkbloom_edge.manifest`, which publisher, registry and provider share.
"""
