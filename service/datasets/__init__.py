"""Datasets: rows uploaded once and named in jobs by their content."""
