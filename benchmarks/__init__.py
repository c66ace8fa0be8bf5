"""``make bench``: our hot paths beside their floors, a file a benchmark."""
