"""Apple evidence over bytes: clock and roots are handed in, every failure has a named reason."""
