"""A mesh whose Apple is a throw-away one: roots are handed over here, and nowhere else."""
