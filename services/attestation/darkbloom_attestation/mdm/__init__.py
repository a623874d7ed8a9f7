"""Asking devices how they stand, through a device management server (spec/security.md §7)."""
