"""What operators do, and the record of it: every write leaves a row that nobody can change."""
