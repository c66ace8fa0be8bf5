"""From a spec to the curvature of every block: which blocks there are, and what building one needs."""
