"""Peers beside us: the same adapter, rows and pairs through other libraries, and what each ranking is worth."""
