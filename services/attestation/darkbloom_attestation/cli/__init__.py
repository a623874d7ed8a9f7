"""Verifiers for the command line: one file in, one JSON object out."""
