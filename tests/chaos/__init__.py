"""Many writers over every command of billing while its database is torn from under them."""
