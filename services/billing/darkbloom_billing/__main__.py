"""`python -m darkbloom_billing [serve|migrate|operator|audit]`."""

from darkbloom_billing.cli import cli

cli(prog_name="darkbloom_billing")
