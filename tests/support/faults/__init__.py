"""What goes wrong with machines and networks, made to happen: one trouble a file."""
