"""Curvatures, solvers, and which go together."""
