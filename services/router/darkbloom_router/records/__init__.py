"""Decision records: one row per attempt and per refusal, kept for two weeks where a store is set.

They explain and never decide: whatever goes wrong with them, requests do not notice.
"""
