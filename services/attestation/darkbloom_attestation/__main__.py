"""`python -m darkbloom_attestation [serve|migrate|verify-…]`."""

from darkbloom_attestation.cli import cli

cli(prog_name="darkbloom_attestation")
