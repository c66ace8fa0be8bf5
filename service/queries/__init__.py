"""New questions to a job that succeeded."""
