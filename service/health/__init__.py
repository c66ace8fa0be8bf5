"""Whether the service lives, takes jobs, and which version it is."""
