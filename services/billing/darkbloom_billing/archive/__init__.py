"""Receipts kept whole for 90 days, and anchored in the transparency log batch by batch."""
