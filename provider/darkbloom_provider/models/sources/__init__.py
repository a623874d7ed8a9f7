"""Where bytes come from: one small interface, one module for each kind of place.

A source only reads. It never sees the store, gives bytes of one file from an offset on, and is
believed in nothing: who downloads counts and hashes.
"""
