"""Releases: wheels that build the same twice, bills of materials, provenance, signatures.

`docs/releasing.md` is the manual; `python -m tools.release --help` names the commands.
"""
