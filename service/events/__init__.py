"""What happened to a job: as a list, or followed while it happens."""
