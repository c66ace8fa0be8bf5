"""What a finished job found: scores, summary, report."""
