"""What this server takes at most."""
