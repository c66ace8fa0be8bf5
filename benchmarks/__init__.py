"""``make bench``: our hot paths beside their floors, in one run on one thread."""
