"""Reads and inspects what a spec points at, without torch: rows, checkpoint headers, paths. Used by both sides."""
