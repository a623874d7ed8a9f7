"""What follows a restore: the database was set back, the world was not."""
