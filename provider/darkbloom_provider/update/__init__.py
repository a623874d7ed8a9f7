"""Updates of this program: signed, staged, swapped by one rename, and taken back when they die."""
