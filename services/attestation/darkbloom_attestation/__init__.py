"""Evidence, challenges, verdicts, code releases and revocations."""
