"""Reading what happened, on a replica, as a role that can do nothing else."""
