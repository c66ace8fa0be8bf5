"""The ledger: see :mod:`ascribe.ledger.base` for the contract."""
